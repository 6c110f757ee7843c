//! A storage that does not serve: no run begins until it does, instead of one that fails for each slot. What finds out is the
//! repository's own look, with its own back-off; runs are no probe. Pure.

use crds::ResticRepository;
use crds::conditions::{self, reasons, types};
use crds::repository::DAMAGE;
use jiff::{SignedDuration, Timestamp};

use super::validate::Valid;

/// Why a repository is not ready, where each run would fail, as it would for [`DAMAGE`]. Not among them is what only the
/// manager cannot do, or what is wrong with the resource: pods then have what they had before.
const NO_ACCESS: [&str; 3] = [
    reasons::REPOSITORY_UNREACHABLE,
    reasons::REPOSITORY_FORBIDDEN,
    reasons::WRONG_PASSWORD,
];
/// One look that fails holds nothing: a storage that restarts is back before the next slot.
const PATIENCE: SignedDuration = SignedDuration::from_secs(90);
/// More are not counted.
const SLOTS_MAX: usize = 100;

/// From when on no run of the repository begins: its storage has not served for 90 seconds then. May lie ahead. `None`
/// while the storage serves, or nothing is known.
#[must_use]
pub fn opens_at(repository: &ResticRepository) -> Option<Timestamp> {
    let status = repository.status.as_ref()?;
    let ready = conditions::get(&status.conditions, types::READY)?;
    let reason = ready.reason.as_str();
    let down = ready.status == "False" && (NO_ACCESS.contains(&reason) || DAMAGE.contains(&reason));
    let since = ready.last_transition_time.0;
    down.then(|| since.saturating_add(PATIENCE).unwrap_or(since))
}

/// What became of the schedule meanwhile.
pub struct Held {
    pub text: String,
    /// When the next slot is due: the text changes then.
    pub again: Option<Timestamp>,
}

/// Slots of the schedule since then.
#[must_use]
pub fn held(valid: &Valid, since: Timestamp, now: Timestamp) -> Held {
    let begun = format!("since {since} no run begins");
    if valid.suspend {
        return Held {
            text: begun,
            again: None,
        };
    }
    let slots = std::iter::successors(valid.schedule.next_after(since), |slot| {
        valid.schedule.next_after(*slot)
    });
    let count = slots.take(SLOTS_MAX).take_while(|slot| *slot <= now).count();
    let missed = match count {
        0 => "none was due yet".to_owned(),
        1 => "1 was due, which is made up for when the repository is ready".to_owned(),
        SLOTS_MAX => {
            format!("{SLOTS_MAX} or more were due, the last is made up for when the repository is ready")
        }
        count => format!("{count} were due, the last is made up for when the repository is ready"),
    };
    let next = valid.schedule.next_after(now);
    Held {
        text: format!("{begun}: {missed}"),
        again: next.filter(|_| count < SLOTS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use crds::ResticBackup;
    use serde_json::json;

    use super::*;
    use crate::site::Site;
    use crate::world::Key;

    fn repository(status: &str, reason: &str) -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
            "status": { "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": "no",
                                         "lastTransitionTime": "2026-11-23T00:30:00Z" }] },
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_makes_each_run_fail_holds_them() {
        for reason in NO_ACCESS.into_iter().chain(DAMAGE) {
            let opens = opens_at(&repository("False", reason));
            assert_eq!(opens, Some(at("2026-11-23T00:31:30Z")), "{reason}");
            assert_eq!(opens_at(&repository("Unknown", reason)), None);
        }
        for reason in [
            reasons::CHECKING,
            reasons::RESTIC_FAILED,
            reasons::INVALID_SPEC,
            reasons::CREDENTIALS_NOT_FOUND,
            reasons::REPOSITORY_LOCKED,
            reasons::INITIALIZATION_FAILED,
        ] {
            assert_eq!(opens_at(&repository("False", reason)), None, "{reason}");
        }
    }

    #[test]
    fn slots_are_counted_once_each() {
        let held = |schedule: &str, suspend: bool, now: &str| {
            let backup: ResticBackup = serde_json::from_value(json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
                "metadata": { "name": "b", "namespace": "shop" },
                "spec": { "repositoryRef": { "name": "nas" }, "schedule": schedule, "suspend": suspend,
                          "source": { "pvc": { "claimName": "data" } } },
            }))
            .unwrap();
            let site = Site::of_tests();
            let valid = super::super::validate::validate(&Key::new("shop", "b"), &site, &backup).unwrap();
            held(&valid, at("2026-11-23T00:30:00Z"), at(now))
        };
        let begun = "since 2026-11-23T00:30:00Z no run begins";
        let first = held("0 * * * *", false, "2026-11-23T00:45:00Z");
        assert_eq!(first.text, format!("{begun}: none was due yet"));
        assert_eq!(first.again, Some(at("2026-11-23T01:00:00Z")));
        assert!(
            held("0 * * * *", false, "2026-11-23T01:00:00Z")
                .text
                .contains(": 1 was due")
        );
        assert!(
            held("0 * * * *", false, "2026-11-23T03:59:59Z")
                .text
                .contains(": 3 were due")
        );
        let many = held("* * * * *", false, "2026-11-25T00:00:00Z");
        assert!(
            many.text.contains("100 or more") && many.again.is_none(),
            "no more writes"
        );
        assert_eq!(held("* * * * *", true, "2026-11-25T00:00:00Z").text, begun);
    }
}
