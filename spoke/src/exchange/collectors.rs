//! Who collects the figures of which repository, as the hub has appointed, and reports that have not been sent yet.
//! See collect.proto. Without a hub, and with one that does not appoint, each cluster collects for itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1::spoke_message::Body;
use proto::v1::{CollectorAssignment, CollectorReport, RepositoryStatistics};
use tokio::sync::Notify;

use crate::clock::BootMillis;

/// A hub that has been away for this long appoints nobody: each cluster collects for itself until it is back.
const ALONE_AFTER: BootMillis = 15 * 60_000;

/// Who collects the figures of a repository.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Collection {
    /// Each cluster for itself.
    #[default]
    Own,
    /// This cluster for all, under this epoch.
    Appointed(u64),
    /// Another cluster, with what it has collected last.
    Elsewhere(String, Option<RepositoryStatistics>),
    /// The hub has not said yet.
    Awaited,
}

impl Collection {
    /// Whether this cluster reads figures.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self, Collection::Own | Collection::Appointed(_))
    }

    /// The epoch of reports to the hub; `None` where nothing is reported.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        match self {
            Collection::Appointed(epoch) => Some(*epoch),
            _ => None,
        }
    }
}

/// Assignments and reports.
pub struct Collectors {
    /// A hub is configured.
    fleet: bool,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Name of this cluster in its certificate.
    name: String,
    session: Session,
    assignments: HashMap<String, CollectorAssignment>,
    /// By repository, with the time of the reading: the latest wins.
    reports: BTreeMap<String, (BootMillis, CollectorReport)>,
}

/// How the hub is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// Since then there is no session.
    Away(BootMillis),
    /// There is one, with a hub that appoints collectors or does not.
    Open { appoints: bool },
}

impl Default for Session {
    fn default() -> Self {
        Session::Away(0)
    }
}

impl Collectors {
    /// With a hub, or alone, as of a time.
    #[must_use]
    pub fn new(fleet: bool, now: BootMillis) -> Collectors {
        let inner = Inner {
            session: Session::Away(now),
            ..Inner::default()
        };
        Collectors {
            fleet,
            inner: Mutex::new(inner),
            changed: Notify::new(),
        }
    }

    /// Who collects the figures of a repository; `None` while its id is not known.
    #[must_use]
    pub fn of(&self, restic_id: Option<&str>, now: BootMillis) -> Collection {
        let inner = self.lock();
        let assignment = restic_id.and_then(|id| inner.assignments.get(id));
        match inner.session {
            _ if !self.fleet => Collection::Own,
            Session::Open { appoints: false } => Collection::Own,
            Session::Away(since) if now.saturating_sub(since) >= ALONE_AFTER => Collection::Own,
            Session::Open { .. } | Session::Away(_) => match assignment {
                None => Collection::Awaited,
                Some(of) if of.cluster.is_empty() => Collection::Own,
                Some(of) if of.cluster == inner.name => Collection::Appointed(of.epoch),
                Some(of) => Collection::Elsewhere(of.cluster.clone(), of.statistics.clone()),
            },
        }
    }

    /// What was collected under an assignment, at a time. It is sent as soon as there is a session.
    pub fn report(&self, report: CollectorReport, now: BootMillis) {
        if self.fleet {
            self.lock()
                .reports
                .insert(report.restic_id.clone(), (now, report));
            self.changed.notify_one();
        }
    }

    /// A session has begun: the hub sends its assignments anew.
    pub(crate) fn connected(&self, name: &str, appoints: bool) {
        let mut inner = self.lock();
        name.clone_into(&mut inner.name);
        inner.session = Session::Open { appoints };
        drop(inner);
        self.changed.notify_one();
    }

    /// There is no session.
    pub(crate) fn disconnected(&self, now: BootMillis) {
        let mut inner = self.lock();
        if matches!(inner.session, Session::Open { .. }) {
            inner.session = Session::Away(now);
        }
    }

    /// The hub has appointed.
    pub(crate) fn assigned(&self, assignment: CollectorAssignment) {
        let mut inner = self.lock();
        inner.assignments.insert(assignment.restic_id.clone(), assignment);
    }

    /// Waits for a report.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reports to send. One of an assignment that is over is dropped.
    pub(crate) fn take(&self, now: BootMillis) -> Vec<Body> {
        let mut inner = self.lock();
        if !matches!(inner.session, Session::Open { .. }) {
            return Vec::new();
        }
        let reports = std::mem::take(&mut inner.reports);
        let present = |report: &CollectorReport| {
            let of = inner.assignments.get(&report.restic_id);
            of.is_some_and(|of| of.cluster == inner.name && of.epoch == report.epoch)
        };
        let due = reports.into_values().filter(|(_, report)| present(report));
        let aged = due.map(|(at, report)| CollectorReport {
            age_ms: now.saturating_sub(at),
            ..report
        });
        aged.map(Body::CollectorReport).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(cluster: &str, epoch: u64) -> CollectorAssignment {
        CollectorAssignment {
            restic_id: "r".to_owned(),
            cluster: cluster.to_owned(),
            epoch,
            statistics: None,
        }
    }

    fn report(epoch: u64) -> CollectorReport {
        CollectorReport {
            restic_id: "r".to_owned(),
            epoch,
            ..CollectorReport::default()
        }
    }

    #[test]
    fn each_cluster_collects_for_itself_without_a_hub_and_with_one_that_does_not_appoint() {
        let alone = Collectors::new(false, 0);
        assert_eq!(alone.of(Some("r"), 0), Collection::Own);
        let old = Collectors::new(true, 0);
        assert_eq!(old.of(Some("r"), 0), Collection::Awaited);
        old.connected("a", false);
        assert_eq!(old.of(Some("r"), 0), Collection::Own);
    }

    #[test]
    fn the_hub_appoints_one_and_the_others_wait_for_what_it_collects() {
        let collectors = Collectors::new(true, 0);
        collectors.connected("a", true);
        assert_eq!(collectors.of(Some("r"), 0), Collection::Awaited);
        assert_eq!(collectors.of(None, 0), Collection::Awaited);
        for (cluster, expected) in [
            ("a", Collection::Appointed(3)),
            ("b", Collection::Elsewhere("b".to_owned(), None)),
            // Its binding is not proven.
            ("", Collection::Own),
        ] {
            collectors.assigned(assignment(cluster, 3));
            assert_eq!(collectors.of(Some("r"), 0), expected);
        }
    }

    #[test]
    fn a_hub_that_is_away_for_long_appoints_nobody() {
        let collectors = Collectors::new(true, 0);
        collectors.connected("a", true);
        collectors.assigned(assignment("b", 1));
        collectors.disconnected(1_000);
        // A second look at the same end.
        collectors.disconnected(2_000);
        let elsewhere = Collection::Elsewhere("b".to_owned(), None);
        assert_eq!(collectors.of(Some("r"), 1_000 + ALONE_AFTER - 1), elsewhere);
        assert_eq!(collectors.of(Some("r"), 1_000 + ALONE_AFTER), Collection::Own);
        collectors.connected("a", true);
        assert_eq!(collectors.of(Some("r"), 1_000 + ALONE_AFTER), elsewhere);
    }

    #[test]
    fn a_report_is_sent_with_its_age_and_not_after_another_was_appointed() {
        let collectors = Collectors::new(true, 0);
        collectors.report(report(1), 100);
        assert_eq!(collectors.take(200), []);
        collectors.connected("a", true);
        collectors.assigned(assignment("a", 1));
        let sent = Body::CollectorReport(CollectorReport {
            age_ms: 150,
            ..report(1)
        });
        assert_eq!(collectors.take(250), [sent]);
        assert_eq!(collectors.take(250), []);
        collectors.report(report(1), 300);
        collectors.assigned(assignment("b", 2));
        assert_eq!(collectors.take(300), []);
    }
}
