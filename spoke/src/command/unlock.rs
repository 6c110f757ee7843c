//! Removes the locks that dead processes have left: the operation that the operator also begins by itself, without the pauses
//! between its attempts. A lock whose process may live stays, and the result says why.

use std::time::Duration;

use crds::ResticRepository;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::v1::CommandState;
use tokio::time::timeout;

use super::handler::{Handler, Lane, Order, Step, Subject, Tools};
use super::ledger::End;
use crate::allow::Allow;
use crate::context::Context;
use crate::credentials;
use crate::exchange::Unlocking;
use crate::world::{Key, Stored as _};

/// Of a repository.
pub struct Unlock {
    pub key: Key,
}

/// After this the locks are listed anew: they may have gone by themselves.
const LIST_AGAIN: u64 = 60_000;
/// Time to list them: other commands about the repository wait for it.
const LIST_TIME: Duration = Duration::from_secs(30);

impl Unlock {
    fn object(&self) -> String {
        format!("ResticRepository {}", self.key)
    }

    /// Lists the locks, and asks the repository's actor to remove those of dead processes.
    async fn begin(&self, tools: &Tools, repository: &ResticRepository) -> Step {
        let context = &tools.context;
        let credentials = match credentials::read(context, repository).await {
            Ok(Ok(credentials)) => credentials,
            Ok(Err(error)) => return Step::Unavailable(error.to_string()),
            Err(error) => return Step::Unavailable(error.to_string()),
        };
        let Ok(listed) = timeout(LIST_TIME, tools.restic.locks(&credentials)).await else {
            return Step::Unavailable(format!("the locks could not be listed in {LIST_TIME:?}"));
        };
        match listed {
            Ok(locks) if locks.is_empty() => {
                let text = "there is no lock in the repository";
                Step::Ends(End::new(CommandState::Done, text).of(self.object()))
            }
            Ok(locks) => {
                let last = repository.status.as_ref().and_then(|s| s.last_unlock.as_ref());
                let unlocking = Unlocking {
                    since: context.clock.since_boot(),
                    locks,
                    last: last.map(|last| last.job_uid.clone()),
                };
                context.commands.unlock(repository.uid(), unlocking);
                (tools.wake)(Subject::Repository, self.key.clone());
                Step::Waits("the locks of the repository are being looked at".to_owned())
            }
            Err(failure) => Step::Unavailable(format!("the locks cannot be listed: {failure}")),
        }
    }

    /// What has come of it.
    fn ended(repository: &ResticRepository, unlocking: &Unlocking) -> Option<End> {
        let status = repository.status.as_ref()?;
        let last = status.last_unlock.as_ref();
        if let Some(last) = last.filter(|last| unlocking.last.as_deref() != Some(&last.job_uid)) {
            return Some(match last.result.as_str() {
                "Applied" => {
                    let text = format!("locks that were removed: {}", last.removed.len());
                    End::new(CommandState::Done, text)
                }
                "NothingToRemove" => End::new(CommandState::Done, "no lock of a dead process was left"),
                result => End::new(CommandState::Failed, format!("{result}: {}", last.message)),
            });
        }
        // One without a reason is about to be removed; one that is not in the status was not looked at yet.
        let kept = |id: &String| {
            let lock = status.locks.iter().find(|lock| lock.id == *id)?;
            let why = lock.kept_because.as_deref()?;
            Some(format!("{}: {why}", id.get(..10).unwrap_or(id)))
        };
        let kept: Option<Vec<String>> = unlocking.locks.iter().map(kept).collect();
        let text = format!("every lock stays: {}", kept?.join("; "));
        Some(End::new(CommandState::Refused, text))
    }
}

impl Handler for Unlock {
    fn allow(&self) -> Allow {
        Allow::Unlock
    }

    fn lane(&self) -> Lane {
        Lane {
            subject: Subject::Repository,
            key: self.key.clone(),
        }
    }

    fn check(&self, context: &Context) -> Result<(), String> {
        match context.world.repositories.get(&self.key) {
            Some(_) => Ok(()),
            None => Err(format!("there is no {} in this cluster", self.object())),
        }
    }

    fn advance<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, Step> {
        async move {
            let context = &tools.context;
            let Some(repository) = context.world.repositories.get(&self.key) else {
                let text = "the ResticRepository was deleted";
                return Step::Ends(End::new(CommandState::Failed, text).of(self.object()));
            };
            let now = context.clock.since_boot();
            let in_time = order.before.is_some_and(|before| now < before);
            match context.commands.unlocking(repository.uid()) {
                None if in_time => self.begin(tools, &repository).await,
                None => Step::Waits("the hub is asked whether it is in time".to_owned()),
                Some(unlocking) => {
                    if let Some(end) = Self::ended(&repository, &unlocking) {
                        context.commands.unlocked(repository.uid());
                        return Step::Ends(end.of(self.object()));
                    }
                    if now >= unlocking.since.saturating_add(LIST_AGAIN) && in_time {
                        return self.begin(tools, &repository).await;
                    }
                    Step::Waits("locks of dead processes are being looked for and removed".to_owned())
                }
            }
        }
        .boxed()
    }

    fn withdraw<'a>(&'a self, tools: &'a Tools, _: &'a Order) -> BoxFuture<'a, bool> {
        let context = &tools.context;
        if let Some(repository) = context.world.repositories.get(&self.key) {
            // A removal that is under way is one that the operator may begin at any time.
            context.commands.unlocked(repository.uid());
        }
        std::future::ready(true).boxed()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ended(status: Value) -> Option<(CommandState, String)> {
        let repository = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:http://nas/", "credentialsSecretRef": { "name": "nas" } },
            "status": status,
        });
        let unlocking = Unlocking {
            since: 0,
            locks: vec!["a".repeat(64), "b".repeat(64)],
            last: Some("before".to_owned()),
        };
        let repository = serde_json::from_value(repository).unwrap();
        Unlock::ended(&repository, &unlocking).map(|end| (end.state, end.text))
    }

    #[test]
    fn it_ends_with_a_removal_or_when_every_lock_has_a_reason_to_stay() {
        let lock = |digit: &str, why: Option<&str>| json!({ "id": digit.repeat(64), "keptBecause": why });
        let unlock = |uid: &str, result: &str| json!({ "jobUID": uid, "result": result, "removed": ["a"] });
        assert_eq!(ended(json!({})), None);
        assert_eq!(ended(json!({ "lastUnlock": unlock("before", "Applied") })), None);
        assert_eq!(
            ended(json!({ "locks": [lock("a", Some("it is new"))] })),
            None,
            "not looked at yet"
        );
        assert_eq!(
            ended(json!({ "locks": [lock("a", Some("x")), lock("b", None)] })),
            None,
            "one goes"
        );
        let (state, text) =
            ended(json!({ "locks": [lock("a", Some("its pod runs")), lock("b", Some("y"))] })).unwrap();
        assert!(
            state == CommandState::Refused && text.contains("its pod runs"),
            "{text}"
        );
        let done = ended(json!({ "lastUnlock": unlock("now", "Applied") })).unwrap();
        assert_eq!(done.0, CommandState::Done);
        assert_eq!(
            ended(json!({ "lastUnlock": unlock("now", "Failed") })).unwrap().0,
            CommandState::Failed
        );
    }
}
