//! Who may report a cluster, and what its sessions do to it besides changing objects.

use std::sync::Arc;

use proto::v1::{ClaimsReport, Collection};

use super::conflict::{Conflict, QUIET};
use super::{Facts, Inventory, Live, Member, Refused};
use crate::Moment;
use crate::store::StoredDecision;

/// What a spoke reports when it connects.
#[derive(Clone, Debug, Default)]
pub struct Introduction {
    pub facts: Facts,
    /// New for each process of a spoke.
    pub incarnation: String,
    /// Digest and number of all that it has.
    pub digest: Vec<u8>,
    pub objects: u64,
    /// It carries out retention for policies of clusters that are away.
    pub retains: bool,
    /// Only where one of its own is for the repository.
    pub retains_with_policy: bool,
    /// The namespaces that it watches; all if empty.
    pub namespaces: Vec<String>,
}

impl Inventory {
    /// A spoke has introduced itself. Older sessions of its cluster no longer count. Whether what is held is what it has.
    ///
    /// # Errors
    /// When a newer session has come first, or it is not clear which of two clusters this is.
    pub fn attach(
        &mut self,
        name: &Arc<str>,
        session: u64,
        introduction: Introduction,
        now: Moment,
    ) -> Result<bool, Refused> {
        if self.forgetting.contains(name) {
            return Err(Refused::Forgotten {
                cluster: name.clone(),
            });
        }
        let stale_after = self.limits.stale_after;
        if !self.members.contains_key(name) {
            let new = Member::new(name.clone());
            self.members.insert(name.clone(), Arc::new(new));
            self.stale.insert(name.clone());
        }
        let Some(member) = self.members.get_mut(name).map(Arc::make_mut) else {
            return Ok(false);
        };
        if member.live.is_some_and(|live| live.session > session) {
            return Err(Refused::Superseded {
                cluster: name.clone(),
            });
        }
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        member.note_origin();
        if let Err(reason) = member.admit(&introduction, stale_after, now) {
            self.refresh_staleness(name);
            self.changes.publish();
            return Err(Refused::Conflict { reason });
        }
        let agrees = member.whole
            && introduction.objects == member.objects.len() as u64
            && introduction.digest == member.digest.to_bytes();
        member.live = Some(Live {
            session,
            since: now.wall,
            retains: introduction.retains,
            retains_with_policy: introduction.retains_with_policy,
        });
        if member.facts.version != introduction.facts.version {
            // An older spoke does not report them, and the hub would take what it knows for the present state.
            member.claims = None;
        }
        member.facts = introduction.facts;
        member.namespaces = introduction.namespaces;
        member.last_heard = Some(now.wall);
        member.heard = Some(now.steady);
        // What the session before had confirmed stays fresh for the grace, until this one has reported everything.
        member.unconfirmed.get_or_insert(now.steady);
        if agrees {
            self.confirm(name, now);
        } else {
            self.look(name, now);
        }
        self.changes.publish();
        Ok(agrees)
    }

    /// A stream has ended. Of no matter when a newer session has taken over.
    pub fn detach(&mut self, name: &Arc<str>, session: u64, now: Moment) {
        let Ok(member) = self.current(name, session) else {
            return;
        };
        member.live = None;
        member.unconfirmed.get_or_insert(now.steady);
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        self.look(name, now);
        self.changes.publish();
    }

    /// Looks whether a cluster is stale as of a time.
    fn look(&mut self, name: &Arc<str>, now: Moment) {
        self.now = self.now.max(now.wall);
        self.steady = self.steady.max(now.steady);
        self.refresh_staleness(name);
    }

    /// A message has come. Whether it still counts.
    ///
    /// # Errors
    /// When a newer session has taken over.
    pub fn hear(&mut self, name: &Arc<str>, session: u64, now: Moment) -> Result<(), Refused> {
        let member = self.current(name, session)?;
        member.last_heard = Some(now.wall);
        member.heard = Some(now.steady);
        // It had paused: a heartbeat that agrees brings no report that would turn it fresh.
        if member.stale {
            self.look(name, now);
            self.changes.publish();
        }
        Ok(())
    }

    /// A cluster has reported its claims.
    ///
    /// # Errors
    /// When a newer session has taken over.
    pub fn take_claims(
        &mut self,
        name: &Arc<str>,
        session: u64,
        claims: ClaimsReport,
    ) -> Result<(), Refused> {
        self.current(name, session)?.claims = Some(Arc::new(claims));
        Ok(())
    }

    /// Whether a session is the present one of its cluster.
    #[must_use]
    pub fn is_present(&self, name: &str, session: u64) -> bool {
        let live = self.member(name).and_then(|member| member.live);
        live.is_some_and(|live| live.session == session)
    }

    /// What is held is not what the spoke has: not complete until a whole inventory has arrived.
    ///
    /// # Errors
    /// When a newer session has taken over.
    pub fn doubt(&mut self, name: &Arc<str>, session: u64, now: Moment) -> Result<(), Refused> {
        let member = self.current(name, session)?;
        member.whole = false;
        member.unconfirmed.get_or_insert(now.steady);
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        self.look(name, now);
        self.changes.publish();
        Ok(())
    }

    /// A report was not taken, and why. What is held stays, and is not complete.
    pub fn refuse(&mut self, name: &Arc<str>, session: u64, reason: &str, now: Moment) {
        if self.doubt(name, session, now).is_err() {
            return;
        }
        if let Some(member) = self.member_mut(name) {
            member.refused = Some(reason.to_owned());
        }
    }

    /// Another cluster asks to have the name of a known one.
    pub fn asks_for(&mut self, name: &str, uid: &str) {
        if let Some(member) = self.member_mut(name) {
            member.rivals.note(uid);
        }
    }

    /// An operator has decided which cluster has the name.
    ///
    /// # Errors
    /// When the name or the uid cannot be meant. A uid that is written wrong would cut off a cluster that is well.
    pub fn accept(&mut self, name: &Arc<str>, uid: &str, decision: StoredDecision) -> Result<(), NotMeant> {
        let member = self.member_mut(name).ok_or(NotMeant::Name)?;
        let present = &member.facts.cluster_uid;
        if present != uid && !member.rivals.may_be(uid, member.live.is_some()) {
            return Err(NotMeant::Uid {
                present: present.clone(),
                rivals: member.rivals.list(),
            });
        }
        if member.facts.cluster_uid != uid {
            member.note_origin();
            uid.clone_into(&mut member.facts.cluster_uid);
            // What is held may be the other one's.
            member.whole = false;
            member.live = None;
        }
        member.accepted = Some(uid.to_owned());
        member.conflict = None;
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        self.unsaved.decisions.push(decision);
        self.changes.publish();
        Ok(())
    }

    /// Shows a cluster as banned, or no longer. Whether a session of it is open.
    pub fn ban(&mut self, name: &str, reason: Option<String>) -> bool {
        let Some(member) = self.member_mut(name) else {
            return false;
        };
        member.banned = reason;
        let name = member.name.clone();
        let connected = member.live.is_some();
        self.changes.touch(Collection::Clusters, &name);
        self.changes.publish();
        connected
    }

    /// Begins to remove a cluster: from now on it cannot connect. Whether it may be removed, because it is not connected.
    pub fn begin_forget(&mut self, name: &Arc<str>) -> bool {
        let connected = self.members.get(name).is_some_and(|member| member.live.is_some());
        !connected && self.forgetting.insert(name.clone())
    }

    /// Ends it. `removed` is whether the store has forgotten the cluster.
    pub fn end_forget(&mut self, name: &Arc<str>, removed: bool) {
        self.forgetting.remove(name);
        if removed {
            self.drop_member(name);
        }
    }

    pub(super) fn current(&mut self, name: &Arc<str>, session: u64) -> Result<&mut Member, Refused> {
        // Nothing is copied for a session that does not count.
        let present = self.is_present(name, session);
        let member = if present { self.member_mut(name) } else { None };
        member.ok_or_else(|| Refused::Superseded {
            cluster: name.clone(),
        })
    }

    /// The session and the hub hold the same: what is held is the present state of the cluster.
    pub(super) fn confirm(&mut self, name: &Arc<str>, now: Moment) {
        let Some(member) = self.member_mut(name) else {
            return;
        };
        member.whole = true;
        member.origin.uid.clone_from(&member.facts.cluster_uid);
        member.refused = None;
        member.last_heard = Some(now.wall);
        member.heard = Some(now.steady);
        member.unconfirmed = None;
        let member = member.clone();
        self.unsaved.vanished |= self.vanished.found_missing(&member, now.wall);
        self.now = self.now.max(now.wall);
        self.steady = self.steady.max(now.steady);
        self.unsaved.members.insert(name.clone());
        self.changes.touch(Collection::Clusters, name);
        self.refresh_staleness(name);
    }
}

/// Why a decision was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum NotMeant {
    /// No cluster has it.
    Name,
    /// The cluster is here with another uid, or others have asked for its name.
    Uid { present: String, rivals: String },
}

impl Member {
    /// Whether a spoke that introduces itself is the cluster that has this name.
    fn admit(&mut self, introduction: &Introduction, stale_after: i64, now: Moment) -> Result<(), String> {
        let (uid, incarnation) = (&introduction.facts.cluster_uid, &introduction.incarnation);
        let (now, name) = (now.steady, self.name.clone());
        if let Some(conflict) = &mut self.conflict {
            if !conflict.knock(uid, incarnation, now) {
                return Err(conflict.reason.clone());
            }
            self.conflict = None;
            self.whole = false;
            return Ok(());
        }
        let heard_within = |limit: i64| self.heard.is_some_and(|at| now.saturating_sub(at) < limit);
        let before = &self.facts.cluster_uid;
        if !before.is_empty() && before != uid {
            self.rivals.note(uid);
            let silent = now.saturating_sub(self.heard.unwrap_or(self.awaited));
            if self.accepted.as_ref() == Some(before) && silent < QUIET {
                return Err(format!(
                    "an operator has accepted {before} as {name}, and this is another cluster ({uid}); `fleet clusters accept {name} --uid UID` changes it"
                ));
            }
            if heard_within(stale_after) {
                let conflict = Conflict::of_uids(&name, before, uid, now);
                return Err(self.enter(conflict));
            }
            self.accepted = None;
        }
        if self.takeovers.begins(incarnation, self.live.is_some(), now) {
            let conflict = Conflict::of_incarnations(&name, uid, now);
            return Err(self.enter(conflict));
        }
        Ok(())
    }

    fn enter(&mut self, conflict: Conflict) -> String {
        let reason = conflict.reason.clone();
        self.conflict = Some(conflict);
        self.live = None;
        reason
    }
}
