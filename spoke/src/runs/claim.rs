//! Whether a pod may use a claim. Pure.

use crds::conditions::reasons;

use crate::world::ClaimView;

/// Why not, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    pub reason: &'static str,
    pub message: String,
}

/// Whether `claim`, named `name` in `field`, may be backed up. One that is not bound must not be: a pod that uses it binds
/// it, to the node of the backup and with nothing in it.
///
/// # Errors
/// What is to be waited for.
pub fn readable(name: &str, claim: Option<&ClaimView>, field: &str) -> Result<(), Unusable> {
    let unusable = |reason, message| Err(Unusable { reason, message });
    let claim = claim.ok_or_else(|| missing(name, field))?;
    writable(name, claim, field)?;
    match &*claim.phase {
        "Bound" => Ok(()),
        "Lost" => unusable(
            reasons::PVC_NOT_BOUND,
            format!(
                "PersistentVolumeClaim {name:?} has lost its PersistentVolume; nothing is there to back up"
            ),
        ),
        _ => unusable(
            reasons::PVC_NOT_BOUND,
            format!(
                "PersistentVolumeClaim {name:?} is not bound to a volume yet; backups begin when it is, such as when the application first uses it"
            ),
        ),
    }
}

/// There is no claim of this name.
#[must_use]
pub fn missing(name: &str, field: &str) -> Unusable {
    Unusable {
        reason: reasons::PVC_NOT_FOUND,
        message: format!(
            "PersistentVolumeClaim {name:?} does not exist in this namespace; create it, or correct {field}"
        ),
    }
}

/// Whether a claim that is there may be mounted as a file system.
///
/// # Errors
/// What is to be waited for, or changed.
pub fn writable(name: &str, claim: &ClaimView, field: &str) -> Result<(), Unusable> {
    if claim.meta.deleting {
        return Err(Unusable {
            reason: reasons::PVC_NOT_FOUND,
            message: format!(
                "PersistentVolumeClaim {name:?} is being deleted; a new one of this name is waited for, or correct {field}"
            ),
        });
    }
    if claim.block {
        return Err(Unusable {
            reason: reasons::PVC_NOT_USABLE,
            message: format!(
                "PersistentVolumeClaim {name:?} has volumeMode Block, and only file systems can be backed up and restored; correct {field}"
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(phase: &str, change: impl FnOnce(&mut ClaimView)) -> ClaimView {
        let mut claim = ClaimView {
            phase: phase.into(),
            ..ClaimView::default()
        };
        change(&mut claim);
        claim
    }

    #[test]
    fn only_a_bound_file_system_is_backed_up() {
        let check = |claim: Option<ClaimView>| match readable("data", claim.as_ref(), "spec.x") {
            Ok(()) => ("ok", String::new()),
            Err(unusable) => (unusable.reason, unusable.message),
        };
        assert_eq!(check(Some(claim("Bound", |_| ()))).0, "ok");
        for (claim, reason, part) in [
            (None, "PersistentVolumeClaimNotFound", "does not exist"),
            (
                Some(claim("Pending", |_| ())),
                "PersistentVolumeClaimNotBound",
                "not bound",
            ),
            (
                Some(claim("", |_| ())),
                "PersistentVolumeClaimNotBound",
                "not bound",
            ),
            (
                Some(claim("Lost", |_| ())),
                "PersistentVolumeClaimNotBound",
                "lost",
            ),
            (
                Some(claim("Bound", |c| c.meta.deleting = true)),
                "PersistentVolumeClaimNotFound",
                "is being deleted",
            ),
            (
                Some(claim("Bound", |c| c.block = true)),
                "PersistentVolumeClaimNotUsable",
                "Block",
            ),
        ] {
            let (got, message) = check(claim);
            assert!(got == reason && message.contains(part), "{got}: {message}");
        }
    }
}
