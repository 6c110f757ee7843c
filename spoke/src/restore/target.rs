//! The claim that a restore writes to: one that `target.pvc` names, or one that this very restore has made and marked with
//! its uid. Pure.

use crds::conditions::reasons;

use super::Wait;
use super::validate::Target;
use crate::runs;
use crate::world::ClaimView;

/// What to do about the claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is there, and the restore may write to it.
    Ready,
    /// It is not there: the restore makes it.
    Make,
    Wait(Wait),
}

/// Decides. `present` is the claim of the target's name as it is now, `uid` that of the restore.
#[must_use]
pub fn claim(target: &Target, uid: &str, present: Option<&ClaimView>) -> Claim {
    let wait = |reason, message| Claim::Wait(Wait { reason, message });
    match (target, present) {
        (Target::Existing(name), None) => wait(
            reasons::PVC_NOT_FOUND,
            format!(
                "PersistentVolumeClaim {name:?} does not exist in this namespace; create it, correct spec.target.pvc.claimName, or let the restore make one with spec.target.newPVC"
            ),
        ),
        (Target::Existing(name), Some(claim)) => {
            match runs::writable(name, claim, "spec.target.pvc.claimName") {
                Ok(()) => Claim::Ready,
                Err(unusable) => wait(unusable.reason, unusable.message),
            }
        }
        (Target::New(_), None) => Claim::Make,
        (Target::New(new), Some(claim)) if claim.meta.deleting => wait(
            reasons::TARGET_EXISTS,
            format!(
                "PersistentVolumeClaim {:?} exists and is being deleted; the restore makes its own when the deletion has ended. Pods that use the claim, also finished ones, delay it",
                new.name
            ),
        ),
        (Target::New(new), Some(claim)) if claim.meta.restore.as_deref() != Some(uid) => wait(
            reasons::TARGET_EXISTS,
            format!(
                "PersistentVolumeClaim {:?} exists already and was not made by this restore; change spec.target.newPVC.name, or restore into it with spec.target.pvc",
                new.name
            ),
        ),
        (Target::New(_), Some(_)) => Claim::Ready,
    }
}

#[cfg(test)]
mod tests {
    use crds::restore::NewPvc;

    use super::*;

    fn meta(deleting: bool, restore: Option<&str>) -> ClaimView {
        let mut claim = ClaimView::default();
        claim.meta.deleting = deleting;
        claim.meta.restore = restore.map(Into::into);
        claim
    }

    fn words(target: &Target, present: Option<ClaimView>) -> (&'static str, String) {
        match claim(target, "mine", present.as_ref()) {
            Claim::Ready => ("ready", String::new()),
            Claim::Make => ("make", String::new()),
            Claim::Wait(wait) => (wait.reason, wait.message),
        }
    }

    #[test]
    fn a_new_claim_is_written_to_only_with_the_mark_of_the_restore() {
        let new = Target::New(NewPvc {
            name: "fresh".to_owned(),
            ..NewPvc::default()
        });
        assert_eq!(words(&new, None).0, "make");
        assert_eq!(words(&new, Some(meta(false, Some("mine")))).0, "ready");
        for other in [None, Some("another")] {
            assert_eq!(words(&new, Some(meta(false, other))).0, "TargetExists");
        }
        for mark in [None, Some("mine")] {
            let (reason, message) = words(&new, Some(meta(true, mark)));
            assert!(
                reason == "TargetExists" && message.contains("is being deleted"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_named_claim_is_written_to_while_it_is_there() {
        let named = Target::Existing("back".to_owned());
        assert_eq!(words(&named, Some(meta(false, None))).0, "ready");
        assert!(words(&named, None).1.contains("does not exist"));
        let (reason, message) = words(&named, Some(meta(true, None)));
        assert!(reason == "PersistentVolumeClaimNotFound" && message.contains("is being deleted"));
        let block = ClaimView {
            block: true,
            ..ClaimView::default()
        };
        assert_eq!(words(&named, Some(block)).0, "PersistentVolumeClaimNotUsable");
    }
}
