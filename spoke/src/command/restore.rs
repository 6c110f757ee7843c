//! Creates a ResticRestore with the id of the command in its name, and follows it to its end.

use std::collections::BTreeMap;

use crds::common::CrossNamespaceObjectReference;
use crds::conditions::{self, types};
use crds::restore::{NewPvc, PvcTarget, RestorePhase, RestoreTarget};
use crds::{ResticRestore, ResticRestoreSpec, names};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::v1::{CommandState, CreateRestore};

use super::handler::{Handler, Lane, Order, Step, Subject, Tools};
use super::ledger::End;
use crate::allow::Allow;
use crate::apply::ApplyError;
use crate::context::Context;
use crate::world::{Key, Stored as _};

/// A restore of a backup's snapshot.
pub struct Restore {
    pub backup: Key,
    pub asked: CreateRestore,
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Restore {
    fn at(&self, id: &str) -> Key {
        self.backup.sibling(names::command_restore(id))
    }

    /// The object.
    fn manifest(&self, id: &str) -> ResticRestore {
        let asked = &self.asked;
        let target = match given(&asked.claim) {
            Some(claim_name) => RestoreTarget {
                pvc: Some(PvcTarget {
                    claim_name,
                    path: given(&asked.path),
                }),
                new_pvc: None,
            },
            None => RestoreTarget {
                pvc: None,
                new_pvc: Some(NewPvc {
                    name: asked.new_claim.clone(),
                    storage_class_name: given(&asked.storage_class),
                    size: given(&asked.size),
                    ..NewPvc::default()
                }),
            },
        };
        let spec = ResticRestoreSpec {
            backup_ref: Some(CrossNamespaceObjectReference {
                name: self.backup.name.to_string(),
                namespace: None,
            }),
            repository_ref: None,
            snapshot_id: Some(given(&asked.snapshot).unwrap_or_else(|| "latest".to_owned())),
            snapshot_selector: None,
            snapshot_path: given(&asked.snapshot_path),
            target,
            include_paths: asked.include_paths.clone(),
            exclude_paths: asked.exclude_paths.clone(),
            options: None,
            hooks: None,
            job_config: None,
            ttl_seconds_after_finished: None,
            notifications: None,
        };
        let mut restore = ResticRestore::new(&names::command_restore(id), spec);
        restore.metadata.namespace = Some(self.backup.namespace.to_string());
        restore.metadata.annotations = Some(BTreeMap::from([(
            names::ANNOTATION_COMMAND.to_owned(),
            id.to_owned(),
        )]));
        restore
    }

    async fn create(&self, context: &Context, id: &str) -> Step {
        let at = self.at(id);
        let object = format!("ResticRestore {at}");
        match context.applier.create(&self.manifest(id)).await {
            Ok(made) => Step::Runs {
                begun: true,
                object,
                uid: made.metadata.uid,
                text: "it was created".to_owned(),
            },
            // Made before; nobody recorded it. The watch brings it.
            Err(ApplyError::Conflict(_)) => Step::Runs {
                begun: true,
                object,
                uid: None,
                text: "it was created".to_owned(),
            },
            Err(ApplyError::Invalid(text) | ApplyError::Forbidden(text) | ApplyError::Gone(text)) => {
                Step::Ends(End::new(CommandState::Refused, text))
            }
            Err(error @ (ApplyError::Unavailable(_) | ApplyError::NotLeader)) => {
                Step::Unavailable(error.to_string())
            }
        }
    }

    fn follow(at: &Key, restore: &ResticRestore) -> Step {
        let object = format!("ResticRestore {at}");
        let status = restore.status.as_ref();
        let ready = status.and_then(|s| conditions::get(&s.conditions, types::READY));
        let words = ready.map_or_else(String::new, |ready| ready.message.clone());
        match status.and_then(|status| status.phase) {
            Some(RestorePhase::Completed) => Step::Ends(End::new(CommandState::Done, words).of(object)),
            Some(RestorePhase::Failed) => Step::Ends(End::new(CommandState::Failed, words).of(object)),
            _ => Step::Runs {
                begun: true,
                object,
                uid: Some(restore.uid().to_owned()),
                text: words,
            },
        }
    }
}

impl Handler for Restore {
    fn allow(&self) -> Allow {
        Allow::Restore
    }

    fn lane(&self) -> Lane {
        Lane {
            subject: Subject::Backup,
            key: self.backup.clone(),
        }
    }

    fn check(&self, context: &Context) -> Result<(), String> {
        if context.world.backups.get(&self.backup).is_none() {
            return Err(format!(
                "there is no ResticBackup {} in this cluster",
                self.backup
            ));
        }
        if self.asked.claim.is_empty() == self.asked.new_claim.is_empty() {
            return Err("name one claim: an existing one, or a new one".to_owned());
        }
        Ok(())
    }

    fn advance<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, Step> {
        async move {
            let (context, at) = (&tools.context, self.at(&order.id));
            if let Some(restore) = context.world.restores.get(&at) {
                return Self::follow(&at, &restore);
            }
            if order.made.is_some() {
                return match context.applier.get::<ResticRestore>(&at).await {
                    Ok(Some(restore)) => Self::follow(&at, &restore),
                    Ok(None) => {
                        let text = "the ResticRestore was deleted before it had ended";
                        Step::Ends(End::new(CommandState::Failed, text).of(format!("ResticRestore {at}")))
                    }
                    Err(error) => Step::Runs {
                        begun: true,
                        object: format!("ResticRestore {at}"),
                        uid: None,
                        text: error.to_string(),
                    },
                };
            }
            let in_time = order
                .before
                .is_some_and(|before| context.clock.since_boot() < before);
            if in_time {
                self.create(context, &order.id).await
            } else {
                Step::Waits("whether it is in time is asked from the hub".to_owned())
            }
        }
        .boxed()
    }

    fn withdraw<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, bool> {
        async move {
            let found = tools
                .context
                .applier
                .get::<ResticRestore>(&self.at(&order.id))
                .await;
            order.made.is_none() && matches!(found, Ok(None))
        }
        .boxed()
    }
}
