//! Condition ReadOnly: by its spec nothing writes into the repository. Pure.

use crds::conditions::{self, Conditions, reasons, types};
use crds::{ResticRepository, ResticRepositoryStatus};
use jiff::Timestamp;

/// Shows it while it is so. A repository that never was read-only has no such condition.
pub(super) fn show(
    repository: &ResticRepository,
    status: &mut ResticRepositoryStatus,
    generation: Option<i64>,
    now: Timestamp,
) {
    let shown = conditions::get(&status.conditions, types::READ_ONLY).is_some();
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    if repository.spec.read_only {
        let text = "no backup and no maintenance begins, and left-over locks stay, while spec.readOnly is true; restores and checks go on";
        conditions.set(types::READ_ONLY, true, reasons::REPOSITORY_READ_ONLY, text);
    } else if shown {
        let text = "backups and maintenance go on";
        conditions.set(types::READ_ONLY, false, reasons::REPOSITORY_WRITABLE, text);
    }
}
