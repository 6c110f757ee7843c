//! Which of restic's locks are left over. Pure. A live restic replaces its lock every 5 minutes by one with a new id,
//! and ends itself when it could not for 22.5 minutes. So an id that did not change for longer than that, on one clock
//! that never jumps, belongs to a process that is dead or will not go on. What the cluster knows of the owner comes on
//! top: nothing is removed while one of our pods may be at work.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::kind::Moment;
use crate::restic::locks::LockFile;

/// Milliseconds since boot, suspend included.
pub type Boot = u64;

/// Clocks that differ by more make restic's own rule (30 minutes by the wall clock) unsafe.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Each read of a lock costs a process that derives the key.
pub const READS: usize = 8;

/// What a lock file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Unread,
    Read(LockFile),
    /// Why not. It is read again at each look.
    Unreadable(String),
}

/// A lock as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub first: Moment,
    /// Begin of the last look in which it was not there yet.
    absent: Option<Timestamp>,
    /// When its holder was last known to be at work.
    alive: Option<Boot>,
    pub content: Content,
}

/// Locks of one repository. In memory alone: after a restart the wait begins anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    seen: BTreeMap<String, Seen>,
    /// Begin of the last look.
    last: Option<Moment>,
}

/// What is known of the process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// A pod of this cluster whose end is not proven; how to name it in a message.
    Alive(String),
    /// A pod of this cluster that has ended, as the kubelet reports.
    Ended,
    /// Of this cluster too, but its pod is not there any more.
    Gone,
    /// Another cluster's, or not the fleet's: only changes of its lock show that it lives.
    Elsewhere,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// An id that did not change for so long, in milliseconds, is left over.
    pub after: Boot,
    /// The same where the holder was a pod of this cluster that has ended, as the kubelet reports, or that is not there any
    /// more. Only tests set it to less.
    pub after_end: Boot,
    /// Clusters that share a repository all see the same lock, and one of them is enough: each waits longer for what is
    /// not its own, by a part of this time, in milliseconds, that follows from its name and the lock.
    pub spread: Boot,
    pub cluster: &'a str,
}

impl Rules<'_> {
    fn extra(&self, id: &str) -> Boot {
        let hash = crds::names::short_hash(format!("{}/{id}", self.cluster).as_bytes());
        let share = u64::from_str_radix(&hash, 16).unwrap_or_default();
        share.checked_rem(self.spread).unwrap_or_default()
    }
}

/// What is to become of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Remove,
    /// Not before this moment; why, in one sentence.
    Wait(Boot, String),
    /// Not without a change, or a person; why, in one sentence.
    Keep(String),
}

impl Verdict {
    /// Why it stays for now.
    #[must_use]
    pub fn kept_because(&self) -> Option<&str> {
        match self {
            Verdict::Remove => None,
            Verdict::Wait(_, text) | Verdict::Keep(text) => Some(text),
        }
    }
}

impl Watch {
    /// Takes in a complete list of ids, read between two moments.
    pub fn look(&mut self, ids: &[String], start: Moment, end: Moment) {
        // A wall clock that was set meanwhile makes each comparison with the time in a lock meaningless.
        if self.last.is_some_and(|last| stepped(last, end)) {
            self.seen.clear();
            self.last = None;
        }
        let absent = self.last.map(|last| last.wall);
        self.seen.retain(|id, _| ids.contains(id));
        for id in ids {
            self.seen.entry(id.clone()).or_insert(Seen {
                first: end,
                absent,
                alive: None,
                content: Content::Unread,
            });
        }
        self.last = Some(start);
    }

    /// Takes in what a lock holds. One that was gone when it was read is not there at the next look.
    pub fn read(&mut self, id: &str, content: Content) {
        if let Some(seen) = self.seen.get_mut(id) {
            seen.content = content;
        }
    }

    /// Notes whose holders are at work: what was seen of a lock before its holder ended says nothing about what it left.
    pub fn meet(&mut self, now: Boot, life: impl Fn(&LockFile) -> Life) {
        for seen in self.seen.values_mut() {
            if let Content::Read(lock) = &seen.content
                && matches!(life(lock), Life::Alive(_))
            {
                seen.alive = Some(now);
            }
        }
    }

    /// Locks, the longest known first.
    #[must_use]
    pub fn locks(&self) -> Vec<(&str, &Seen)> {
        let mut all: Vec<_> = self.seen.iter().map(|(id, seen)| (id.as_str(), seen)).collect();
        all.sort_by_key(|(id, seen)| (seen.first.boot, *id));
        all
    }

    /// Whether there is anything to look after.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Begin of the last look.
    #[must_use]
    pub fn last(&self) -> Option<Moment> {
        self.last
    }

    /// What is to become of each lock, in the order of [`Watch::locks`]. One is removed only if a look that began when its
    /// wait was over has found it: a wait may be over already while that look is still to come.
    pub fn judge(
        &self,
        rules: Rules<'_>,
        now: Boot,
        life: impl Fn(&LockFile) -> Life,
    ) -> Vec<(&str, Verdict)> {
        let skew = self.skew();
        let looked = self.last.map_or(0, |last| last.boot);
        let judged = self.locks().into_iter();
        judged
            .map(|(id, seen)| (id, judge(id, seen, rules, (looked, now), skew.as_deref(), &life)))
            .collect()
    }

    /// Describes a lock whose time contradicts this cluster's clock.
    fn skew(&self) -> Option<String> {
        self.seen.values().find_map(|seen| {
            let Content::Read(lock) = &seen.content else {
                return None;
            };
            let early = seen.absent.is_some_and(|absent| earlier(lock.time, absent));
            let late = earlier(seen.first.wall, lock.time);
            (early || late).then(|| {
                format!(
                    "the clock of {} and the operator's differ by more than 5 minutes; set the clocks first",
                    lock.host
                )
            })
        })
    }
}

fn judge(
    id: &str,
    seen: &Seen,
    rules: Rules<'_>,
    (looked, now): (Boot, Boot),
    skew: Option<&str>,
    life: &impl Fn(&LockFile) -> Life,
) -> Verdict {
    let lock = match &seen.content {
        Content::Read(lock) => lock,
        Content::Unread => return Verdict::Keep("it has not been read yet".to_owned()),
        Content::Unreadable(why) => {
            return Verdict::Keep(format!("it cannot be read, so nobody knows whose it is: {why}"));
        }
    };
    let (own, after) = match life(lock) {
        Life::Alive(what) => return Verdict::Keep(format!("{what} may still be at work")),
        Life::Ended | Life::Gone => (true, rules.after_end),
        Life::Elsewhere => (false, rules.after),
    };
    let ended = seen.alive.map_or(0, |alive| alive.saturating_add(1));
    let due = seen.first.boot.saturating_add(after).max(ended);
    if looked.min(now) < due {
        return Verdict::Wait(
            due,
            format!(
                "it is removed when its id has not changed for {} (restic changes it every 5 minutes while it works)",
                span(after)
            ),
        );
    }
    if let Some(skew) = skew {
        return Verdict::Keep(skew.to_owned());
    }
    let due = due.saturating_add(if own { 0 } else { rules.extra(id) });
    if looked.min(now) < due {
        return Verdict::Wait(
            due,
            "its process is dead; another cluster may remove it first, and if none does, this one will"
                .to_owned(),
        );
    }
    Verdict::Remove
}

/// By more than clocks may differ.
fn earlier(a: Timestamp, b: Timestamp) -> bool {
    b.duration_since(a) > SKEW
}

fn stepped(from: Moment, to: Moment) -> bool {
    let boot = i64::try_from(to.boot.saturating_sub(from.boot)).unwrap_or(i64::MAX);
    let wall = to.wall.duration_since(from.wall);
    (wall - SignedDuration::from_millis(boot)).abs() > SKEW
}

/// Such as "35m" or "90s".
fn span(ms: Boot) -> String {
    let seconds = ms / 1000;
    if seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
#[path = "locks_tests.rs"]
mod tests;
