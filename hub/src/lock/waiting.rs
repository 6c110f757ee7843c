//! Messages to spokes whose operations wait, and to those that hold their backups for them.

use std::collections::HashMap;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{Drain, LeaseWaiting};

use super::describe;
use super::grantor::{Grant, Instant, Operation, Phase, Waiter};
use super::hosts::{self, Stand, Standing};
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
        let reason = describe::reason(&repository.grantor, repository.crowded.as_deref());
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

    /// Finds out which of these repositories wait for a place on their storage host.
    pub(super) fn find_places(&mut self, ids: &[Arc<str>], now: Instant) {
        let places = self.settings.per_host;
        let standings: Vec<Standing> = match places {
            0 => Vec::new(),
            _ => ids.iter().map(|id| self.standing(id, now)).collect(),
        };
        let mut crowded = hosts::crowded(places, &standings);
        for id in ids {
            if let Some(repository) = self.repositories.get_mut(id) {
                repository.crowded = crowded.remove(id);
            }
        }
    }

    fn standing(&self, id: &Arc<str>, now: Instant) -> Standing {
        let connected = |cluster: &str| self.sessions.contains_key(cluster);
        let stand = self.repositories.get(id).map(|repository| {
            let grantor = &repository.grantor;
            match grantor.phase() {
                Phase::Draining {
                    first: Waiter { operation, .. },
                    ..
                }
                | Phase::Granting {
                    grant: Grant { operation, .. },
                    ..
                }
                | Phase::Held {
                    grant: Grant { operation, .. },
                    ..
                } => match self.asks.unlocks(operation) {
                    true => Stand::Apart,
                    false => Stand::Works,
                },
                Phase::Free | Phase::Delay { .. } => {
                    let can = |operation: &Operation| {
                        connected(&operation.cluster) && !self.asks.unlocks(operation)
                    };
                    grantor.could_begin(now, can).map_or(Stand::Apart, Stand::Waits)
                }
            }
        });
        let host = self.hub.read(|inventory| {
            let bound = inventory.index().bindings(id);
            let mut bound = bound.filter(|held| inventory.bindings().is_bound(&held.cluster, id));
            bound.find_map(|held| hosts::host(&held.repository()?.url))
        });
        Standing {
            id: id.clone(),
            host,
            stand: stand.unwrap_or(Stand::Apart),
        }
    }
}
