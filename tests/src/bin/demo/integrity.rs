//! A check of the repository's integrity, asked for now.

use std::time::Duration;

use tests::{Bed, fleet, progress};

use crate::NAMESPACE;

/// Reads all data, and waits until the repository has passed.
pub fn check(bed: &Bed) -> anyhow::Result<()> {
    progress("cluster a checks the repository's integrity, and reads all of its data");
    let a = bed.cluster("a")?;
    let job = format!("check-{}", jiff::Timestamp::now().as_second());
    let from = "--from=cronjob/integritycheck-shared";
    a.kubectl(&["create", "job", "-n", NAMESPACE, &job, from])?;
    let passed = "jsonpath={.status.lastIntegrityCheckResult}=Passed";
    let repository = "resticrepository/shared";
    fleet::wait(&a, NAMESPACE, repository, passed, Duration::from_secs(120))
}
