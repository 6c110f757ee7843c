//! Condition Copied: another store holds a repository with the same id, or it is not known whether one does. Pure.

use crds::ResticRepositoryStatus;
use crds::conditions::{self, Conditions, Status, reasons, types};
use jiff::Timestamp;
use proto::v1::RepositoryCopies;

use crate::kind::{Announcement, announce};

/// Shows what the hub has found out. What it has not sent yet changes nothing, and a repository that was never copied has no
/// such condition.
pub(super) fn show(
    copies: Option<&RepositoryCopies>,
    status: &mut ResticRepositoryStatus,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(copies) = copies else { return };
    let shown = conditions::get(&status.conditions, types::COPIED).is_some();
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    if !copies.unclear.is_empty() {
        let text = format!("no retention run begins: {}", copies.unclear);
        conditions.set(types::COPIED, Status::Unknown, reasons::STORE_UNCLEAR, text);
    } else if !copies.copies.is_empty() {
        conditions.set(types::COPIED, true, reasons::COPY_FOUND, &copies.copies);
    } else if shown {
        let text = "no other store with this id is in use";
        conditions.set(types::COPIED, false, reasons::ONE_STORE, text);
    }
}

/// The announcement that this has changed.
pub(super) fn changed(old: &ResticRepositoryStatus, new: &ResticRepositoryStatus) -> Option<Announcement> {
    let of = |status: &ResticRepositoryStatus| {
        let condition = conditions::get(&status.conditions, types::COPIED)?;
        Some(condition.reason.clone())
    };
    let condition = conditions::get(&new.conditions, types::COPIED)?;
    (of(old) != of(new)).then(|| announce(condition, condition.status == "False"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_shown_while_there_is_one_and_nothing_is_where_none_ever_was() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let sent = |copies: &str, unclear: &str| RepositoryCopies {
            restic_id: "id".to_owned(),
            copies: copies.to_owned(),
            unclear: unclear.to_owned(),
        };
        let mut status = ResticRepositoryStatus::default();
        show(None, &mut status, Some(1), at(1));
        show(Some(&sent("", "")), &mut status, Some(1), at(1));
        assert_eq!(status.conditions, []);
        for (copies, unclear, expected) in [
            ("", "which", "Unknown StoreUnclear no retention run begins: which"),
            ("b", "", "True CopyFound b"),
            ("", "", "False OneStore no other store with this id is in use"),
        ] {
            let before = status.clone();
            show(Some(&sent(copies, unclear)), &mut status, Some(1), at(2));
            let shown = &status.conditions[0];
            let text = format!("{} {} {}", shown.status, shown.reason, shown.message);
            assert_eq!(text, expected);
            assert_eq!(changed(&before, &status).unwrap().reason, shown.reason);
            let kept = status.clone();
            show(None, &mut status, Some(1), at(3));
            assert_eq!(status, kept, "unknown is not none");
            assert_eq!(changed(&kept, &status), None);
        }
    }
}
