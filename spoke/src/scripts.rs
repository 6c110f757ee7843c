//! The entrypoint of backup pods: one ConfigMap in each namespace that has backups or
//! restores, and none in others. Level-triggered:
//! what is there is compared with what should be, so a deletion missed while nobody watched is made up for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::names;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::apply::ApplyError;
use crate::context::Context;
use crate::pod::ENTRYPOINT_KEY;
use crate::world::{Key, Meta, MetaView};

/// Constant text: nothing of a resource is ever put into it.
const ENTRYPOINT: &str = include_str!("backup/entrypoint.sh");
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the ConfigMaps.
#[derive(Default)]
pub struct Scripts {
    changed: Notify,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Namespaces that lack the ConfigMap, or have an old one.
    make: Vec<String>,
    /// ConfigMaps to remove, with their uids.
    remove: Vec<(Key, String)>,
}

impl Scripts {
    /// Backups or ConfigMaps have changed.
    pub fn poke(&self) {
        self.changed.notify_one();
    }

    /// Works until `stop`.
    pub async fn run(
        self: Arc<Self>,
        context: Arc<Context>,
        mut synced: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let work = async {
            if synced.wait_for(|synced| *synced).await.is_err() {
                return;
            }
            // A wake-up may have been lost with an earlier start.
            self.poke();
            loop {
                self.changed.notified().await;
                sleep(SETTLE).await;
                if context.leader.is_leader() && !self.settle(&context).await {
                    sleep(RETRY).await;
                    self.poke();
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// One pass; `false` if something has to be tried again.
    async fn settle(&self, context: &Context) -> bool {
        let world = &context.world;
        let backups = world
            .backups
            .namespaces(|backup| backup.metadata.deletion_timestamp.is_none());
        let restores = world
            .restores
            .namespaces(|restore| restore.metadata.deletion_timestamp.is_none());
        let users = backups.iter().chain(&restores);
        let wanted: BTreeSet<String> = users.map(|namespace| namespace.to_string()).collect();
        let present = world.config_maps.filter(|key, _| *key.name == *names::SCRIPTS);
        let present = present
            .into_iter()
            .map(|(key, view)| (key, view.meta.clone()))
            .collect();
        let Difference { make, remove } = difference(&wanted, &present, &hash());
        let mut done = true;
        for namespace in make {
            match context.applier.apply(&manifest(&namespace)).await {
                Ok(written) => {
                    let view = MetaView {
                        meta: Meta::of(&written.metadata),
                    };
                    world
                        .config_maps
                        .put(Key::new(&namespace, names::SCRIPTS), Arc::new(view));
                }
                // A namespace that is being deleted takes nothing new.
                Err(ApplyError::Gone(_) | ApplyError::Forbidden(_) | ApplyError::NotLeader) => {}
                Err(error) => {
                    warn!(namespace, %error, "could not write the entrypoint's ConfigMap");
                    done = false;
                }
            }
        }
        for (key, uid) in remove {
            match context.applier.delete::<ConfigMap>(&key, &uid).await {
                Ok(()) => drop(world.config_maps.remove(&key, Some(&uid))),
                Err(ApplyError::NotLeader) => {}
                Err(error) => {
                    warn!(object = %key, %error, "could not remove the entrypoint's ConfigMap");
                    done = false;
                }
            }
        }
        done
    }
}

/// Compares. Pure.
fn difference(wanted: &BTreeSet<String>, present: &BTreeMap<Key, Meta>, hash: &str) -> Difference {
    let right = |namespace: &String| {
        let meta = present.get(&Key::new(namespace, names::SCRIPTS));
        meta.is_some_and(|meta| meta.applied.as_deref() == Some(hash) && !meta.deleting)
    };
    let make = wanted
        .iter()
        .filter(|namespace| !right(namespace))
        .cloned()
        .collect();
    let unused = present
        .iter()
        .filter(|(key, meta)| !wanted.contains(&*key.namespace) && !meta.deleting);
    Difference {
        make,
        remove: unused
            .map(|(key, meta)| (key.clone(), meta.uid.to_string()))
            .collect(),
    }
}

fn manifest(namespace: &str) -> ConfigMap {
    let labels = [
        (names::LABEL_APP, names::APP),
        (names::LABEL_MANAGED_BY, names::APP),
        (names::LABEL_COMPONENT, "backup"),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::SCRIPTS.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            annotations: Some([(names::ANNOTATION_APPLIED.to_owned(), hash())].into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            ENTRYPOINT_KEY.to_owned(),
            ENTRYPOINT.to_owned(),
        )])),
        ..ConfigMap::default()
    }
}

/// Hash that every right ConfigMap carries.
fn hash() -> String {
    names::short_hash(ENTRYPOINT.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(namespace: &str, hash: &str) -> (Key, Meta) {
        let meta = Meta {
            uid: namespace.into(),
            applied: Some(hash.into()),
            ..Meta::default()
        };
        (Key::new(namespace, names::SCRIPTS), meta)
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let wanted = BTreeSet::from(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        let have = BTreeMap::from([present("a", "good"), present("b", "old"), present("z", "good")]);
        let got = difference(&wanted, &have, "good");
        assert_eq!(got.make, ["b", "c"]);
        assert_eq!(got.remove, [(Key::new("z", names::SCRIPTS), "z".to_owned())]);
        let have = BTreeMap::from([present("a", "good")]);
        assert_eq!(
            difference(&BTreeSet::from(["a".to_owned()]), &have, "good"),
            Difference::default()
        );
    }
}
