//! Commands of the hub: what has arrived, what is reported, and the runs that actors are to make for them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1::spoke_message::Body;
use proto::v1::{Command, CommandReport};
use tokio::sync::Notify;

use crate::clock::BootMillis;

/// Commands between the link, the part that carries them out, and the actors.
#[derive(Default)]
pub struct Commands {
    inner: Mutex<Inner>,
    arrived: Notify,
    reported: Notify,
}

#[derive(Default)]
struct Inner {
    arrived: Vec<Arrived>,
    /// The latest of each command.
    reports: BTreeMap<String, CommandReport>,
    /// By uid of the resource, and by id of the command.
    wanted: BTreeMap<String, BTreeMap<String, Wanted>>,
    /// By uid of the repository.
    unlocking: BTreeMap<String, Unlocking>,
}

/// What the hub has sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrived {
    /// A command, and by when it has to begin.
    Command(Box<Command>, BootMillis),
    /// The end of a command is known to the hub.
    Settled(String),
}

/// A run that a command asks for.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    before: BootMillis,
    preview: bool,
    behalf: Option<Behalf>,
    /// Its Job is being created.
    claimed: bool,
}

/// Locks of a repository that a command asks to remove, where their processes are dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlocking {
    /// Since when, in milliseconds since boot.
    pub since: BootMillis,
    /// Ids of the locks that were there.
    pub locks: Vec<String>,
    /// uid of the last Job that removed locks before.
    pub last: Option<String>,
}

/// A run that an actor is to make for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandedRun {
    /// uid of the resource.
    pub of: String,
    pub id: String,
    /// It shows what it would do, and does nothing.
    pub preview: bool,
    /// Of a repository: a retention run for a cluster that is away, and no check.
    pub behalf: Option<Behalf>,
}

/// What a retention run for a cluster that is away is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behalf {
    /// `<cluster>/<namespace>/<name>`; empty for a run of a plan that was approved.
    pub policy: String,
    /// Hash of the plan that it may carry out; empty for none.
    pub approved: String,
}

/// A Job is created for a command while this lives: it cannot be withdrawn meanwhile.
pub struct Claim<'a> {
    commands: &'a Commands,
    run: &'a CommandedRun,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.commands.lock();
        let its = inner.wanted.get_mut(&self.run.of);
        if let Some(wanted) = its.and_then(|its| its.get_mut(&self.run.id)) {
            wanted.claimed = false;
        }
    }
}

impl Commands {
    /// The hub has sent a command or settled one.
    pub(crate) fn deliver(&self, arrived: Arrived) {
        self.lock().arrived.push(arrived);
        self.arrived.notify_one();
    }

    /// Resolves when something has arrived.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// What has arrived, in order.
    pub(crate) fn take_arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.lock().arrived)
    }

    /// Reports where a command stands.
    pub(crate) fn report(&self, report: CommandReport) {
        self.lock().reports.insert(report.id.clone(), report);
        self.reported.notify_one();
    }

    /// Resolves when the hub has to be told something.
    pub(crate) async fn reported(&self) {
        self.reported.notified().await;
    }

    /// What the hub has to be told.
    pub(crate) fn take_reports(&self) -> Vec<Body> {
        let reports = std::mem::take(&mut self.lock().reports);
        reports.into_values().map(Body::CommandReport).collect()
    }

    /// A new session: the hub asks for what it wants to know.
    pub(crate) fn restart(&self) {
        self.lock().reports.clear();
    }

    /// A resource's actor is to make a run, before a time.
    pub(crate) fn want(&self, run: &CommandedRun, before: BootMillis) {
        let mut inner = self.lock();
        let its = inner.wanted.entry(run.of.clone()).or_default();
        let wanted = its.entry(run.id.clone()).or_insert(Wanted {
            before,
            preview: run.preview,
            behalf: run.behalf.clone(),
            claimed: false,
        });
        wanted.before = before;
    }

    /// The runs that a resource's actor is to make, in the order of their ids.
    pub(crate) fn wanted(&self, of: &str) -> Vec<CommandedRun> {
        let inner = self.lock();
        let its = inner.wanted.get(of).into_iter().flatten();
        its.map(|(id, wanted)| CommandedRun {
            of: of.to_owned(),
            id: id.clone(),
            preview: wanted.preview,
            behalf: wanted.behalf.clone(),
        })
        .collect()
    }

    /// Begins to create the Job of a run. `None`: it is not wanted any more, or its time is over.
    pub(crate) fn claim<'a>(&'a self, run: &'a CommandedRun, now: BootMillis) -> Option<Claim<'a>> {
        let mut inner = self.lock();
        let wanted = inner.wanted.get_mut(&run.of)?.get_mut(&run.id)?;
        if now >= wanted.before {
            return None;
        }
        wanted.claimed = true;
        drop(inner);
        Some(Claim { commands: self, run })
    }

    /// No Job is to be made for a command any more. False: one is being created.
    pub(crate) fn withdraw(&self, of: &str, id: &str) -> bool {
        let mut inner = self.lock();
        let Some(its) = inner.wanted.get_mut(of) else {
            return true;
        };
        if its.get(id).is_some_and(|wanted| wanted.claimed) {
            return false;
        }
        its.remove(id);
        if its.is_empty() {
            inner.wanted.remove(of);
        }
        true
    }

    /// A repository's actor is to look at these locks now, and to remove those of dead processes.
    pub(crate) fn unlock(&self, repository: &str, unlocking: Unlocking) {
        self.lock().unlocking.insert(repository.to_owned(), unlocking);
    }

    /// What is asked about a repository's locks.
    pub(crate) fn unlocking(&self, repository: &str) -> Option<Unlocking> {
        self.lock().unlocking.get(repository).cloned()
    }

    /// Nothing is asked about them any more.
    pub(crate) fn unlocked(&self, repository: &str) {
        self.lock().unlocking.remove(repository);
    }

    /// A new term of leadership: actors are asked anew. What has arrived stays.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.wanted.clear();
        inner.unlocking.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> CommandedRun {
        CommandedRun {
            of: "uid".to_owned(),
            id: id.to_owned(),
            preview: false,
            behalf: None,
        }
    }

    #[test]
    fn a_run_is_made_in_time_or_not_at_all() {
        let commands = Commands::default();
        commands.want(&run("b"), 100);
        commands.want(&run("a"), 100);
        assert_eq!(commands.wanted("uid"), [run("a"), run("b")]);
        assert_eq!(commands.wanted("other"), []);
        assert!(commands.claim(&run("a"), 100).is_none(), "its time is over");
        assert!(commands.claim(&run("c"), 1).is_none(), "not wanted");
        let asked = run("a");
        let claim = commands.claim(&asked, 99).unwrap();
        assert!(!commands.withdraw("uid", "a"), "its Job is being created");
        drop(claim);
        assert!(commands.withdraw("uid", "a") && commands.withdraw("uid", "a"));
        assert!(commands.claim(&asked, 1).is_none());
        assert_eq!(commands.wanted("uid"), [run("b")]);
    }

    #[test]
    fn the_hub_is_told_the_latest_of_each_and_nothing_of_a_session_before() {
        let commands = Commands::default();
        let report = |id: &str, text: &str| CommandReport {
            id: id.to_owned(),
            text: text.to_owned(),
            ..CommandReport::default()
        };
        commands.report(report("1", "old"));
        commands.report(report("2", "x"));
        commands.report(report("1", "new"));
        let told = commands.take_reports();
        assert_eq!(
            told,
            [
                Body::CommandReport(report("1", "new")),
                Body::CommandReport(report("2", "x"))
            ]
        );
        commands.report(report("1", "again"));
        commands.restart();
        assert_eq!(commands.take_reports(), []);
    }
}
