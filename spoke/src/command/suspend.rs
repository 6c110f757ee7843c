//! Suspends and resumes: spec.suspend by server-side apply under a manager of its own, and never against another one. What a
//! person or a GitOps tool has set stays theirs, and the result says whose it is.

use std::fmt::Debug;

use crds::{GlobalRetentionPolicy, ResticBackup};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::ResourceExt as _;
use proto::v1::CommandState;
use serde_json::{Value, json};

use super::handler::{Handler, Lane, Order, Step, Subject, Tools};
use super::ledger::End;
use crate::allow::Allow;
use crate::apply::{ApplyError, Object};
use crate::context::Context;
use crate::world::{Key, Stored};

/// Owner of the field where the hub has set it.
const MANAGER: &str = "restic-fleet-hub";

/// What is suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Backup(Key),
    Policy(Key),
}

/// Suspends a resource, or resumes it.
pub struct Suspend {
    pub target: Target,
    pub suspend: bool,
}

impl Suspend {
    fn uid(&self, context: &Context) -> Option<String> {
        let world = &context.world;
        match &self.target {
            Target::Backup(key) => world.backups.get(key).map(|it| Stored::uid(&*it).to_owned()),
            Target::Policy(key) => world.policies.get(key).map(|it| Stored::uid(&*it).to_owned()),
        }
    }

    fn object(&self) -> String {
        match &self.target {
            Target::Backup(key) => format!("ResticBackup {key}"),
            Target::Policy(key) => format!("GlobalRetentionPolicy {key}"),
        }
    }

    /// Whether the resource is as the command wants it, by the cache.
    fn is_so(&self, context: &Context) -> bool {
        let world = &context.world;
        let present = match &self.target {
            Target::Backup(key) => world.backups.get(key).map(|it| it.spec.suspend),
            Target::Policy(key) => world.policies.get(key).map(|it| it.spec.suspend),
        };
        present == Some(self.suspend)
    }

    async fn write(&self, context: &Context, uid: &str) -> Step {
        match &self.target {
            Target::Backup(key) => {
                self.apply::<ResticBackup>(context, key, uid, |it| it.spec.suspend)
                    .await
            }
            Target::Policy(key) => {
                self.apply::<GlobalRetentionPolicy>(context, key, uid, |it| it.spec.suspend)
                    .await
            }
        }
    }

    async fn apply<T: Object + Stored + Debug>(
        &self,
        context: &Context,
        key: &Key,
        uid: &str,
        suspended: fn(&T) -> bool,
    ) -> Step {
        // To resume is to give the field up: the schema's default is false, and what others have set shows.
        let spec = if self.suspend {
            json!({ "suspend": true })
        } else {
            json!({})
        };
        let written = context.applier.share::<T>(key, uid, MANAGER, &spec).await;
        let object = format!("{} {key}", T::kind(&()));
        match written {
            Ok(it) if suspended(&it) == self.suspend => {
                let text = if self.suspend {
                    "spec.suspend is true"
                } else {
                    "spec.suspend is not set any more"
                };
                Step::Ends(End::new(CommandState::Done, text).of(object))
            }
            Ok(it) => Step::Ends(kept_by_another(owner(&it)).of(object)),
            Err(ApplyError::Conflict(text) | ApplyError::Invalid(text) | ApplyError::Forbidden(text)) => {
                Step::Ends(End::new(CommandState::Refused, text).of(object))
            }
            Err(ApplyError::Gone(_)) => {
                Step::Ends(End::new(CommandState::Failed, "it was deleted").of(object))
            }
            // Nothing may have been written, or all of it: the same write again is no other.
            Err(error @ (ApplyError::Unavailable(_) | ApplyError::NotLeader)) => {
                Step::Unavailable(error.to_string())
            }
        }
    }
}

fn kept_by_another(owner: Option<String>) -> End {
    let owner = owner.unwrap_or_else(|| "an unnamed program".to_owned());
    End::new(
        CommandState::Refused,
        format!(
            "spec.suspend is true, and {owner} has set it: change it there (for GitOps, in its repository)"
        ),
    )
}

/// Who has set spec.suspend.
fn owner<T: Object>(it: &T) -> Option<String> {
    let owns = |fields: &Value| fields.pointer("/f:spec/f:suspend").is_some();
    let entries = it.managed_fields().iter();
    let owning = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    let names: Vec<&str> = owning.filter_map(|entry| entry.manager.as_deref()).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

impl Handler for Suspend {
    fn allow(&self) -> Allow {
        Allow::Suspend
    }

    fn lane(&self) -> Lane {
        let (subject, key) = match &self.target {
            Target::Backup(key) => (Subject::Backup, key.clone()),
            Target::Policy(key) => (Subject::Policy, key.clone()),
        };
        Lane { subject, key }
    }

    /// What was asked for last is what stays.
    fn in_turn(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Result<(), String> {
        let (kind, key) = match &self.target {
            Target::Backup(key) => ("ResticBackup", key),
            Target::Policy(key) => ("GlobalRetentionPolicy", key),
        };
        match self.uid(context) {
            Some(_) => Ok(()),
            None => Err(format!("there is no {kind} {key} in this cluster")),
        }
    }

    fn advance<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, Step> {
        async move {
            let context = &tools.context;
            let in_time = order
                .before
                .is_some_and(|before| context.clock.since_boot() < before);
            match self.uid(context) {
                Some(uid) if in_time => self.write(context, &uid).await,
                // A write whose answer was lost was in time.
                Some(_) if self.is_so(context) => {
                    let text = format!("spec.suspend is {}", self.suspend);
                    Step::Ends(End::new(CommandState::Done, text).of(self.object()))
                }
                Some(_) => Step::Waits("the hub is asked whether it is in time".to_owned()),
                None => Step::Ends(End::new(CommandState::Failed, "the resource was deleted")),
            }
        }
        .boxed()
    }

    fn withdraw<'a>(&'a self, tools: &'a Tools, _: &'a Order) -> BoxFuture<'a, bool> {
        async move {
            // The cache may be behind a write whose answer was lost.
            let applier = &tools.context.applier;
            let present = match &self.target {
                Target::Backup(key) => applier
                    .get::<ResticBackup>(key)
                    .await
                    .map(|it| it.map(|it| it.spec.suspend)),
                Target::Policy(key) => {
                    let policy = applier.get::<GlobalRetentionPolicy>(key).await;
                    policy.map(|it| it.map(|it| it.spec.suspend))
                }
            };
            present.is_ok_and(|present| present != Some(self.suspend))
        }
        .boxed()
    }
}
