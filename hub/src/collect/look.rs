//! The look at what has changed: appoints where it is due, and tells clusters.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{Collection, CollectorAssignment, HubMessage};
use tracing::info;

use super::decide::{Standing, appoint, has_missed};
use super::reported::{Reported, of_cluster, reported};
use super::{Appointer, INTERVALS, Told};
use crate::store::StoreError;
use crate::store::collect::HOUR;
use crate::{Millis, Moment};

impl Appointer {
    /// Appoints where it is due, and tells clusters what has changed. Costs what has changed.
    pub(super) async fn look(&mut self, prune: bool) -> Result<(), StoreError> {
        self.note();
        let now = Moment::now().steady;
        let overdue = self.standing.iter().filter(|(id, standing)| {
            let interval = self.reported.get(*id).map(|of| self.interval(id, of));
            interval.is_some_and(|interval| has_missed(standing, interval, now))
        });
        let due: BTreeSet<Arc<str>> = overdue.map(|(id, _)| id).chain(&self.open).cloned().collect();
        for id in due {
            // What fails is open still.
            self.appoint(&id, now).await?;
            if self.tell(&id) {
                self.open.remove(&id);
            }
        }
        if prune {
            self.store.prune_points(Moment::now().wall).await?;
        }
        Ok(())
    }

    /// Notes what has changed since the last look.
    fn note(&mut self) {
        let inventory = self.hub.snapshot();
        let changes = inventory.changes();
        let touched = self
            .looked
            .and_then(|at| changes.since(at, Collection::Repositories));
        // Too long ago: everything there is, and everything there was.
        let touched = touched.unwrap_or_else(|| {
            let all = inventory.index().repositories().chain(self.reported.keys());
            all.cloned().collect()
        });
        self.looked = Some(changes.revision());
        self.open.extend(touched);
        for cluster in std::mem::take(&mut self.moved) {
            self.open.extend(of_cluster(&inventory, &cluster).cloned());
        }
        let collects = |cluster: &Arc<str>| self.sessions.get(cluster).is_some_and(|s| s.collects);
        for id in &self.open {
            match reported(&inventory, id, collects) {
                Some(of) => self.reported.insert(id.clone(), of),
                None => self.reported.remove(id),
            };
        }
    }

    /// Appoints the collector of a repository, if that is due.
    async fn appoint(&mut self, id: &Arc<str>, now: Millis) -> Result<(), StoreError> {
        let chosen = self.reported.get(id).and_then(|of| {
            let interval = self.interval(id, of);
            appoint(id, self.standing.get(id), &of.candidates, interval, now)
        });
        let Some(cluster) = chosen else {
            return Ok(());
        };
        // Durable before it is told: of two epochs that are equal neither would be the later one.
        let epoch = self.store.appoint(id, &cluster).await?;
        info!(repository = %id, %cluster, epoch, "collects the figures of the repository");
        self.hub
            .change(|inventory| inventory.appointed(id, &cluster, epoch));
        let standing = Standing {
            cluster,
            epoch,
            heard: now,
        };
        self.standing.insert(id.clone(), standing);
        Ok(())
    }

    fn interval(&self, id: &Arc<str>, of: &Reported) -> Millis {
        let named = self.intervals.get(id).copied();
        let interval = named.or(of.interval).unwrap_or(HOUR);
        interval.clamp(INTERVALS.0, INTERVALS.1)
    }

    /// Sends every cluster that reports a repository who collects it, when that has changed. Whether all know it.
    fn tell(&mut self, id: &Arc<str>) -> bool {
        let Some(of) = self.reported.get(id) else {
            return true;
        };
        let nobody = |cluster: &Arc<str>| (cluster.clone(), (String::new(), 0, None));
        let mut news: Vec<(Arc<str>, Told)> = of.others.iter().map(nobody).collect();
        // Where none is appointed yet, nobody can be told.
        if let Some(Standing { cluster, epoch, .. }) = self.standing.get(id) {
            for candidate in &of.candidates {
                let latest = of.latest.filter(|_| candidate.cluster != *cluster);
                let told = (cluster.to_string(), *epoch, latest);
                news.push((candidate.cluster.clone(), told));
            }
        }
        let sent = news
            .into_iter()
            .map(|(cluster, told)| self.send(&cluster, id, told));
        sent.fold(true, |all, known| all & known)
    }

    /// Whether the cluster knows it, or needs not to.
    fn send(&mut self, cluster: &Arc<str>, id: &Arc<str>, told: Told) -> bool {
        let Some(session) = self.sessions.get_mut(cluster).filter(|s| s.collects) else {
            return true;
        };
        if session.told.get(id) == Some(&told) {
            return true;
        }
        // The rest is sent with the next look.
        if !session.outgoing.has_room() {
            return false;
        }
        let statistics = told.2.and_then(|_| {
            self.hub.read(|inventory| {
                let latest = inventory.collected(id)?.latest.as_ref()?;
                latest.report.statistics.clone()
            })
        });
        let assignment = CollectorAssignment {
            restic_id: id.to_string(),
            cluster: told.0.clone(),
            epoch: told.1,
            statistics,
        };
        let message = HubMessage {
            body: Some(Body::CollectorAssignment(assignment)),
        };
        // A spoke that does not read its stream is let go, and is told again when it is back.
        let sent = session.outgoing.send(message).is_ok();
        if sent {
            session.told.insert(id.clone(), told);
            self.hub
                .metrics
                .messages
                .with_label_values(&["out", "collector"])
                .inc();
        }
        true
    }
}
