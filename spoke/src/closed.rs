//! Why maintenance of a repository may not begin by a person's settings: it is read-only, or no window is open. Pure.

use crds::window::AllowedWindow;
use crds::{GlobalRetentionPolicy, ResticRepository};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::consent;
use crate::operation::Closed;
use crate::world::Key;

/// What no change shows is looked at again after this time.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// A repository is read-only.
#[must_use]
pub fn read_only(at: &Key, repository: &ResticRepository, now: Timestamp) -> Option<Closed> {
    let text = consent::read_only(at, repository)?;
    let again = now.checked_add(AGAIN).unwrap_or(now);
    Some(Closed { text, again })
}

/// The window of a repository is not open.
#[must_use]
pub fn of_repository(at: &Key, repository: &ResticRepository, now: Timestamp) -> Option<Closed> {
    let window = repository.spec.allowed_window.as_ref()?;
    window_of("ResticRepository", at, (window, &repository.metadata), now)
}

/// The window of a policy is not open.
#[must_use]
pub fn of_policy(at: &Key, policy: &GlobalRetentionPolicy, now: Timestamp) -> Option<Closed> {
    let window = policy.spec.allowed_window.as_ref()?;
    window_of("GlobalRetentionPolicy", at, (window, &policy.metadata), now)
}

/// A window that cannot be read is not open: its resource says what is wrong.
fn window_of(
    kind: &str,
    at: &Key,
    (window, metadata): (&AllowedWindow, &ObjectMeta),
    now: Timestamp,
) -> Option<Closed> {
    let later = now.checked_add(AGAIN).unwrap_or(now);
    match window.parse(kind, metadata) {
        Ok(window) => {
            let opens = window.opens(now)?;
            let text = format!("outside of spec.allowedWindow of {kind} {at}, which opens at {opens}");
            Some(Closed { text, again: opens })
        }
        Err(error) => Some(Closed {
            text: format!("{kind} {at}: spec.{error}"),
            again: later,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maintenance_waits_for_the_window_and_for_a_repository_that_may_be_written() {
        let at = Key::new("shop", "nas");
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let repository = |spec: serde_json::Value| -> ResticRepository {
            let mut full = json!({ "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } });
            full.as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            serde_json::from_value(json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
                "metadata": { "name": "nas", "namespace": "shop" }, "spec": full,
            }))
            .unwrap()
        };
        let plain = repository(json!({}));
        assert_eq!(
            (read_only(&at, &plain, now), of_repository(&at, &plain, now)),
            (None, None)
        );
        let closed = read_only(&at, &repository(json!({ "readOnly": true })), now).unwrap();
        assert!(closed.text.contains("shop/nas is read-only"), "{}", closed.text);
        let night = json!({ "allowedWindow": { "schedule": "0 22 * * *", "duration": "6h" } });
        let closed = of_repository(&at, &repository(night.clone()), now).unwrap();
        assert_eq!(closed.again, "2026-11-26T22:00:00Z".parse().unwrap());
        assert!(
            closed.text.ends_with("opens at 2026-11-26T22:00:00Z"),
            "{}",
            closed.text
        );
        let open = "2026-11-26T23:00:00Z".parse().unwrap();
        assert_eq!(of_repository(&at, &repository(night), open), None);
        let wrong = json!({ "allowedWindow": { "schedule": "0 22 * * *", "duration": "6 h" } });
        let closed = of_repository(&at, &repository(wrong), now).unwrap();
        assert!(
            closed.text.contains("spec.allowedWindow.duration"),
            "{}",
            closed.text
        );
    }
}
