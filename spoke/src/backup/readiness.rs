//! Whether a backup may run, and what it waits for. Pure.

use std::collections::BTreeMap;

use crds::ResticRepository;
use crds::conditions::{Conditions, reasons, types};
use jiff::Timestamp;

use super::breaker;
use super::locate::{self, Located};
use super::validate::Valid;
use crate::consent::{self, Blocked};
use crate::runs::Unusable;
use crate::world::Key;

/// What the decision depends on.
pub struct Surroundings<'a> {
    pub repository: Option<&'a ResticRepository>,
    /// Labels of the backup's own namespace, if it is in the cache.
    pub labels: Option<&'a BTreeMap<String, String>>,
    pub source: &'a locate::Surroundings,
    pub now: Timestamp,
}

/// The decision.
#[derive(Debug, PartialEq)]
pub enum Readiness {
    /// Make, or keep, what the backup needs. With the place of its data.
    Ready(Located),
    /// Leave what is there as it is; say what is waited for.
    /// `again`: when it becomes `Down`, unless something changes.
    Waiting {
        reason: &'static str,
        message: String,
        again: Option<Timestamp>,
    },
    /// The storage does not serve: no run may begin, that of the schedule neither. `again`: when the message changes.
    Down {
        message: String,
        again: Option<Timestamp>,
    },
    /// The source cannot be read: no run may begin, that of the schedule neither.
    Held { reason: &'static str, message: String },
    /// The repository's owner does not, or no longer, consent: stop what is there.
    Refused { message: String },
}

impl Readiness {
    /// Whether the backup may run, as conditions. Ready is left as it is where objects are made: that follows from them.
    pub(super) fn show(&self, conditions: &mut Conditions<'_>) {
        let well = (true, reasons::REPOSITORY_READY, "the repository is ready");
        match self {
            Readiness::Ready(_) => {
                conditions.set(types::REPOSITORY_READY, well.0, well.1, well.2);
            }
            Readiness::Refused { message } => {
                let reason = reasons::NAMESPACE_NOT_ALLOWED;
                conditions
                    .set(types::REPOSITORY_READY, false, reason, message)
                    .set(types::READY, false, reason, message);
            }
            Readiness::Held { reason, message } => {
                conditions
                    .set(types::REPOSITORY_READY, well.0, well.1, well.2)
                    .set(types::READY, false, reason, message);
            }
            Readiness::Down { message, .. } => {
                let reason = reasons::REPOSITORY_NOT_READY;
                conditions
                    .set(types::REPOSITORY_READY, false, reason, message)
                    .set(types::READY, false, reason, message);
            }
            Readiness::Waiting { reason, message, .. } => {
                conditions
                    .set(types::REPOSITORY_READY, false, reason, message)
                    .set(types::READY, false, reason, message);
            }
        }
    }
}

/// Decides.
#[must_use]
pub fn readiness(key: &Key, valid: &Valid, observed: &Surroundings<'_>) -> Readiness {
    let blocked = consent::usable(
        &valid.repository,
        &key.namespace,
        observed.repository,
        observed.labels,
    );
    match blocked {
        Err(Blocked::Wait { reason, message }) => {
            let opens = observed.repository.and_then(breaker::opens_at);
            return match opens {
                Some(since) if since <= observed.now => {
                    let held = breaker::held(valid, since, observed.now);
                    Readiness::Down {
                        message: format!("{message}; {}", held.text),
                        again: held.again,
                    }
                }
                again => Readiness::Waiting {
                    reason,
                    message,
                    again,
                },
            };
        }
        Err(Blocked::Refused { message }) => return Readiness::Refused { message },
        Ok(repository) => {
            if let Some(message) = consent::read_only(&valid.repository, repository) {
                let reason = reasons::REPOSITORY_READ_ONLY;
                return Readiness::Held { reason, message };
            }
        }
    }
    match locate::locate(valid, observed.source) {
        Ok(located) => Readiness::Ready(located),
        Err(Unusable { reason, message }) => Readiness::Held { reason, message },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::world::ClaimView;

    fn repository(ready: &str, allowed: Value) -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "storage" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "allowedNamespaces": allowed },
            "status": { "repositoryID": "id", "conditions": [{ "type": "Ready", "status": ready, "reason": "WrongPassword", "message": "no",
                                         "lastTransitionTime": "2026-11-23T00:00:00Z" }] },
        }))
        .unwrap()
    }

    fn bound() -> ClaimView {
        ClaimView {
            phase: "Bound".into(),
            ..ClaimView::default()
        }
    }

    fn decide(repository: Option<&ResticRepository>, namespace: &str, there: bool) -> Readiness {
        decide_on(repository, namespace, there.then_some(&bound()))
    }

    fn decide_on(
        repository: Option<&ResticRepository>,
        namespace: &str,
        claim: Option<&ClaimView>,
    ) -> Readiness {
        decide_at("2026-11-23T12:00:00Z", repository, namespace, claim)
    }

    fn decide_at(
        now: &str,
        repository: Option<&ResticRepository>,
        namespace: &str,
        claim: Option<&ClaimView>,
    ) -> Readiness {
        let backup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "b" },
            "spec": { "repositoryRef": { "name": "nas", "namespace": "storage" }, "schedule": "@daily",
                      "source": { "pvc": { "claimName": "data" } } },
        }));
        let key = Key::new(namespace, "b");
        let valid =
            super::super::validate::validate(&key, &crate::site::Site::of_tests(), &backup.unwrap()).unwrap();
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        readiness(
            &key,
            &valid,
            &Surroundings {
                repository,
                labels: Some(&labels),
                now: now.parse().unwrap(),
                source: &locate::Surroundings {
                    claims: claim
                        .map(|claim| ("data".to_owned(), Arc::new(claim.clone())))
                        .into_iter()
                        .collect(),
                    ..locate::Surroundings::default()
                },
            },
        )
    }

    fn reason(readiness: Readiness) -> &'static str {
        match readiness {
            Readiness::Ready(_) => "open",
            Readiness::Waiting { reason, .. } | Readiness::Held { reason, .. } => reason,
            Readiness::Down { .. } => "down",
            Readiness::Refused { message } => {
                assert!(message.contains("spec.allowedNamespaces"));
                "refused"
            }
        }
    }

    #[test]
    fn each_obstacle_has_its_own_reason() {
        assert_eq!(reason(decide(None, "storage", true)), "RepositoryNotFound");
        assert_eq!(
            reason(decide(Some(&repository("Unknown", Value::Null)), "storage", true)),
            "RepositoryNotReady"
        );
        assert_eq!(
            reason(decide(Some(&repository("False", Value::Null)), "storage", true)),
            "down"
        );
        assert_eq!(
            reason(decide(Some(&repository("True", Value::Null)), "storage", false)),
            "PersistentVolumeClaimNotFound"
        );
        assert_eq!(
            reason(decide(Some(&repository("True", Value::Null)), "storage", true)),
            "open"
        );
    }

    #[test]
    fn a_storage_that_is_down_for_a_moment_holds_nothing() {
        let down = repository("False", Value::Null);
        let at = |now| decide_at(now, Some(&down), "storage", Some(&bound()));
        let opens = "2026-11-23T00:01:30Z";
        let Readiness::Waiting { again, .. } = at("2026-11-23T00:01:29Z") else {
            panic!()
        };
        assert_eq!(again, opens.parse().ok());
        assert_eq!(reason(at(opens)), "down");
    }

    #[test]
    fn nothing_runs_on_a_claim_that_cannot_be_read() {
        let ready = repository("True", Value::Null);
        let mut deleting = bound();
        deleting.meta.deleting = true;
        let pending = ClaimView::default();
        for (claim, words) in [
            (Some(&deleting), "is being deleted"),
            (Some(&pending), "is not bound"),
            (None, "does not exist"),
        ] {
            let Readiness::Held { message, .. } = decide_on(Some(&ready), "storage", claim) else {
                panic!("{claim:?}")
            };
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn another_namespace_needs_consent() {
        let expression = |operator, values: Value| json!({ "from": "Selector", "selector": { "matchExpressions": [{ "key": "team", "operator": operator, "values": values }] } });
        for (allowed, expected) in [
            (Value::Null, "refused"),
            (json!({}), "refused"),
            (json!({ "from": "Same" }), "refused"),
            (json!({ "from": "All" }), "open"),
            (json!({ "from": "Selector" }), "refused"),
            (
                json!({ "from": "Selector", "selector": { "matchLabels": { "team": "shop" } } }),
                "open",
            ),
            (
                json!({ "from": "Selector", "selector": { "matchLabels": { "team": "crm" } } }),
                "refused",
            ),
            (expression("In", json!(["shop"])), "open"),
            (expression("NotIn", json!(["shop"])), "refused"),
            (expression("Exists", Value::Null), "open"),
            (expression("DoesNotExist", Value::Null), "refused"),
            (expression("Like", Value::Null), "refused"),
        ] {
            assert_eq!(
                reason(decide(Some(&repository("True", allowed.clone())), "shop", true)),
                expected,
                "{allowed}"
            );
        }
    }

    #[test]
    fn no_run_begins_while_the_repository_is_read_only() {
        let mut repository = repository("True", json!({ "from": "All" }));
        assert!(matches!(
            decide(Some(&repository), "shop", true),
            Readiness::Ready(_)
        ));
        repository.spec.read_only = true;
        let held = decide(Some(&repository), "shop", true);
        assert!(matches!(held, Readiness::Held { .. }), "{held:?}");
        assert_eq!(reason(held), "RepositoryReadOnly");
    }

    #[test]
    fn a_repository_that_is_not_ready_is_quoted() {
        let Readiness::Down { message, .. } =
            decide(Some(&repository("False", Value::Null)), "storage", true)
        else {
            panic!()
        };
        assert!(message.contains("is not ready: WrongPassword: no; "));
    }
}
