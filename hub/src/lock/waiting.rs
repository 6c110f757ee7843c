//! Messages to spokes whose operations wait, and to those that hold their backups for them.

use std::collections::HashMap;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{Drain, LeaseWaiting};

use super::describe;
use super::grantor::Phase;
use super::keeper::Keeper;

impl Keeper {
    /// Asks all clusters that are bound to a repository to hold new backups, or to go on.
    pub(super) fn drain(&self, id: &Arc<str>, begin: bool) {
        let duration_ms = if begin { self.settings.terms.drain } else { 0 };
        let bound: Vec<Arc<str>> = self
            .hub
            .read(|inventory| inventory.bindings().bound(id).cloned().collect());
        for cluster in bound {
            let drain = Drain {
                restic_id: id.to_string(),
                duration_ms,
            };
            self.send(&cluster, Body::Drain(drain));
        }
    }

    /// A spoke that connects during a drain holds its backups for the rest of it.
    pub(super) fn tell_drains(&self, cluster: &Arc<str>) {
        let now = self.now();
        for (id, repository) in &self.repositories {
            let Phase::Draining { until, .. } = repository.grantor.phase() else {
                continue;
            };
            if self
                .hub
                .read(|inventory| inventory.bindings().is_bound(cluster, id))
            {
                let drain = Drain {
                    restic_id: id.to_string(),
                    duration_ms: until.saturating_sub(now).max(1),
                };
                self.send(cluster, Body::Drain(drain));
            }
        }
    }

    /// Sends each waiter what it waits for, when that has changed.
    pub(super) fn tell_waiting(&mut self, id: &Arc<str>) {
        let Some(repository) = self.repositories.get_mut(id) else {
            return;
        };
        let reason = describe::reason(&repository.grantor);
        let mut told = HashMap::new();
        let mut news = Vec::new();
        for (position, waiter) in repository.grantor.waiting().iter().enumerate() {
            let key = (waiter.operation.cluster.clone(), waiter.operation.id.clone());
            let message = LeaseWaiting {
                operation: waiter.operation.id.to_string(),
                position: u32::try_from(position + 1).unwrap_or(u32::MAX),
                reason: reason.clone(),
                restic_id: id.to_string(),
            };
            if repository.told.get(&key) != Some(&message) {
                news.push((waiter.operation.cluster.clone(), message.clone()));
            }
            told.insert(key, message);
        }
        repository.told = told;
        for (cluster, message) in news {
            self.send(&cluster, Body::LeaseWaiting(message));
        }
    }
}
