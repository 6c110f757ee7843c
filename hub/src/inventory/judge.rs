//! What the passing of time and each change make of what is held: states, staleness, and what needs a person.

use std::sync::Arc;

use proto::v1::Collection;

use super::index::moments;
use super::{Held, Inventory};
use crate::health::Evidence;
use crate::{Moment, evidence, policies, waits};

/// Clusters that turn stale in one step: each has its backups judged anew, and writers wait meanwhile.
const STEP: usize = 64;
/// Backups that come due in one step.
const BACKUPS: usize = 4_096;

impl Inventory {
    /// Moves the time on: what went silent turns stale, what came due turns late.
    pub fn advance(&mut self, now: Moment) {
        while self.step(now) {}
    }

    /// A bounded part of that. Whether there is more.
    pub fn step(&mut self, now: Moment) -> bool {
        self.now = now.wall;
        self.steady = now.steady;
        let mut more = true;
        for _ in 0..STEP {
            let Some((at, name)) = self.silences.due(now.steady) else {
                more = false;
                break;
            };
            if let Some(member) = self.member_mut(&name).filter(|m| m.looked_at == Some(at)) {
                member.looked_at = None;
                self.refresh_staleness(&name);
            }
        }
        for n in 0.. {
            if n == BACKUPS {
                more = true;
                break;
            }
            let Some((_, place)) = self.deadlines.due(now.wall) else {
                break;
            };
            if let Some(held) = self.index.backup(&place).cloned() {
                self.judge(&held);
                self.touch(&held);
                self.expect(&held);
            }
            // Its row names the run after the one that has come now.
            if let Some(held) = self.index.policy(&place).cloned() {
                self.changes.touch(Collection::Policies, &place);
                self.expect(&held);
            }
        }
        self.changes.publish();
        more
    }

    /// Looks whether a cluster is stale, and when to look again.
    pub(super) fn refresh_staleness(&mut self, name: &Arc<str>) {
        let (limits, now) = (self.limits, self.steady);
        let Some(member) = self.member_mut(name) else {
            return;
        };
        let (at, stale) = (member.stale_at(&limits), member.is_stale(&limits, now));
        let before = std::mem::replace(&mut member.stale, stale);
        // A cluster that is stale turns fresh by what it says, and not with time.
        let next = (!stale).then_some(at);
        let set = std::mem::replace(&mut member.looked_at, next);
        if set != next {
            set.inspect(|at| self.silences.unset(*at, name));
            next.inspect(|at| self.silences.set(*at, name));
        }
        if stale != before {
            self.turned(name, stale);
        }
    }

    /// A cluster has turned stale or fresh.
    fn turned(&mut self, name: &Arc<str>, stale: bool) {
        match stale {
            true => self.stale.insert(name.clone()),
            false => self.stale.remove(name),
        };
        self.changes.touch(Collection::Clusters, name);
        let objects = self.members.get(name).map(|member| member.objects.clone());
        for held in objects.iter().flat_map(|objects| objects.values()) {
            if held.repository().is_some() {
                self.changes.touch(Collection::Repositories, &held.row);
            } else if held.backup().is_some() {
                self.judge(held);
                self.changes.touch(Collection::Backups, &held.place);
            } else if held.policy().is_some() {
                self.changes.touch(Collection::Policies, &held.place);
            } else if held.restore().is_some() {
                self.changes.touch(Collection::Restores, &held.place);
            }
        }
    }

    /// Judges a backup that is held, as of now.
    pub(super) fn judge(&mut self, held: &Held) {
        let Some(backup) = held.backup() else {
            return;
        };
        let evidence = Evidence {
            backup,
            deadline: held.deadline,
            fresh: self.fresh(&held.cluster),
        };
        let health = evidence.health(self.now);
        let cause = health.needs_person().then(|| evidence.reason(health));
        let Held { cluster, place, .. } = held;
        self.index.judged.put(cluster, place, health, cause);
    }

    /// Notes what is wrong with a resource that is held, besides its state.
    pub(super) fn note_matters(&mut self, held: &Held) {
        let wrong = match held.backup() {
            Some(backup) => {
                let listing = self
                    .collected(backup.restic_id())
                    .and_then(|c| c.listing.as_deref());
                let reason = listing.and_then(|listing| evidence::unproven(held, listing));
                reason
                    .into_iter()
                    .map(|why| (waits::Matter::Unproven, why))
                    .collect()
            }
            None => waits::of(held),
        };
        self.index.matters.put(kind(held), &held.place, wrong);
    }

    /// Has a backup or policy looked at again when it changes by itself the next time: a policy's row names its next run.
    fn expect(&mut self, held: &Held) {
        let now = self.now;
        let moments = moments(held).filter(|at| *at > now);
        if let Some(at) = moments.chain(policies::next_run(held, now)).min() {
            self.deadlines.set(at, &held.place);
        }
    }

    /// Works out all that follows from a resource that has just been indexed.
    pub(super) fn settle(&mut self, held: &Arc<Held>) {
        self.judge(held);
        self.note_matters(held);
        self.expect(held);
        if held.repository().is_some() {
            self.measure(&held.row);
        }
    }

    /// The same of one that has just been taken out.
    pub(super) fn unsettle(&mut self, held: &Held) {
        self.index.matters.put(kind(held), &held.place, Vec::new());
        let next = policies::next_run(held, self.now);
        for at in moments(held).chain(next) {
            self.deadlines.unset(at, &held.place);
        }
        if held.repository().is_some() {
            self.measure(&held.row);
        }
    }
}

/// Two kinds may have one place.
fn kind(held: &Held) -> u8 {
    match () {
        () if held.backup().is_some() => 0,
        () if held.repository().is_some() => 1,
        () if held.policy().is_some() => 2,
        () if held.restore().is_some() => 3,
        () => 4,
    }
}
