//! What makes a plan wait for a person. Pure. Measured per cluster and per group, against what the last applied run
//! left: a policy at its steady state removes as many snapshots as were added, and loses none.

use std::collections::{BTreeMap, HashMap};

use proto::plan::{cluster_key, group_key, is_cut, is_mark, whole};
use proto::v1::{Baseline, RetentionRun};

use super::select::clusters;
use crate::restic::Snapshot;

/// Why a plan has to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Guard {
    #[error("the plan would remove the last snapshot of {0}")]
    LastOfGroup(String),
    #[error(
        "the plan would remove {removed} of {present} snapshots of {of} ({percent}% fewer than {than}), above spec.guard.maxRemovedPercent ({allowed}%)"
    )]
    TooMuch {
        of: String,
        removed: usize,
        present: usize,
        percent: usize,
        than: &'static str,
        allowed: u32,
    },
    #[error("it is the first plan that removes something with cluster {0} bound to this repository")]
    NewCluster(String),
}

impl Guard {
    /// Reason in CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Guard::LastOfGroup(_) => "LastOfGroup",
            Guard::TooMuch { .. } => "OverGuard",
            Guard::NewCluster(_) => "NewCluster",
        }
    }

    /// As it stands in the plan's document.
    #[must_use]
    pub fn document(&self) -> proto::plan::Guard {
        proto::plan::Guard {
            reason: self.reason().to_owned(),
            message: self.to_string(),
        }
    }
}

/// Snapshots of a cluster or of a group.
struct Part {
    /// For people.
    name: String,
    /// Key of the cluster of a group; `None` for a cluster.
    within: Option<String>,
    present: usize,
    removed: usize,
    /// Smallest maxRemovedPercent of the policies that remove something here.
    allowed: u32,
}

/// What is known of the snapshots that the last applied run left of a cluster or a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// This many.
    Left(usize),
    /// Its list was cut, and lacks the figure: it may have been there.
    CutOff,
    /// Nothing is known.
    Unknown,
}

/// The snapshots by cluster and by group.
pub struct Parts(BTreeMap<String, Part>);

impl Parts {
    /// Counts. `removed` holds the ids that are removed, each with the smallest percentage of those who remove it.
    #[must_use]
    pub fn count(snapshots: &[Snapshot], removed: &HashMap<&str, u32>) -> Parts {
        let mut parts = BTreeMap::new();
        for snapshot in snapshots {
            let allowed = removed.get(snapshot.id.as_str()).copied();
            let mut owners = clusters(snapshot);
            if owners.is_empty() {
                owners.push("");
            }
            for cluster in owners {
                add(&mut parts, cluster_key(cluster), allowed, || match cluster {
                    "" => ("no cluster".to_owned(), None),
                    name => (format!("cluster {name}"), None),
                });
            }
            let key = group_key(&snapshot.hostname, &snapshot.paths, &snapshot.tags);
            let cluster = clusters(snapshot).first().copied().unwrap_or_default();
            add(&mut parts, key, allowed, || {
                (group_name(snapshot), Some(cluster_key(cluster)))
            });
        }
        Parts(parts)
    }

    /// What the plan leaves: of every cluster and group.
    #[must_use]
    pub fn left(&self) -> Vec<Baseline> {
        let left = |(key, part): (&String, &Part)| Baseline {
            key: key.clone(),
            left: u32::try_from(part.present - part.removed).unwrap_or(u32::MAX),
        };
        whole(self.0.iter().map(left).collect())
    }

    /// Everything that makes the plan wait, most important first.
    #[must_use]
    pub fn guards(&self, run: &RetentionRun) -> Vec<Guard> {
        let before = run.baseline.iter().filter(|b| !is_mark(&b.key));
        let before: HashMap<&str, u32> = before.map(|b| (b.key.as_str(), b.left)).collect();
        let cut = is_cut(&run.baseline);
        let loses = || self.0.iter().filter(|(_, part)| part.removed > 0);
        let emptied = loses().filter(|(_, part)| part.within.is_some() && part.removed == part.present);
        let emptied = emptied.map(|(_, part)| Guard::LastOfGroup(part.name.clone()));
        let base = |key: &str, part: &Part| {
            // A run that knew the cluster, and not this group, left nothing of it: it did not exist. A list that was cut
            // does not say so: what there is now counts instead.
            let known = |cluster: &str| before.contains_key(cluster);
            match before.get(key) {
                Some(left) => Base::Left(*left as usize),
                None if cut => Base::CutOff,
                None if part.within.as_deref().is_some_and(known) => Base::Left(0),
                None => Base::Unknown,
            }
        };
        let over = loses().filter_map(|(key, part)| too_much(part, base(key, part)));
        // Keys of clusters sort before those of groups.
        let mut guards: Vec<Guard> = emptied.chain(over).collect();
        // Before the first applied run no cluster is newer than another.
        if loses().next().is_some() && !run.new_clusters.is_empty() && (cut || !before.is_empty()) {
            guards.push(Guard::NewCluster(run.new_clusters.join(", ")));
        }
        guards
    }
}

fn add(
    parts: &mut BTreeMap<String, Part>,
    key: String,
    allowed: Option<u32>,
    describe: impl FnOnce() -> (String, Option<String>),
) {
    let part = parts.entry(key).or_insert_with(|| {
        let (name, within) = describe();
        Part {
            name,
            within,
            present: 0,
            removed: 0,
            allowed: u32::MAX,
        }
    });
    part.present += 1;
    if let Some(allowed) = allowed {
        part.removed += 1;
        part.allowed = part.allowed.min(allowed);
    }
}

fn group_name(snapshot: &Snapshot) -> String {
    let tags = |prefix: &str| snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix));
    let of = match (tags("fleet.backup="), tags("fleet.cluster=")) {
        (Some(backup), Some(cluster)) => format!("backup {backup} of cluster {cluster}, "),
        _ => String::new(),
    };
    format!(
        "{of}host {} with paths {}",
        snapshot.hostname,
        snapshot.paths.join(", ")
    )
}

fn too_much(part: &Part, before: Base) -> Option<Guard> {
    let (base, than) = match before {
        Base::Left(left) => (left, "the last applied run left"),
        Base::CutOff | Base::Unknown => (part.present, "there are now"),
    };
    let left = part.present - part.removed;
    let lost = part.removed.min(base.saturating_sub(left));
    // Rules by hour, day and week keep one snapshot more or less from day to day, which is much of a small group.
    let drift = before != Base::Unknown && lost == 1 && part.allowed > 0;
    if lost == 0 || drift {
        return None;
    }
    // In whole per cent, rounded up: 0 lets no loss through.
    let percent = (lost * 100).div_ceil(base);
    (percent > part.allowed as usize).then(|| Guard::TooMuch {
        of: part.name.clone(),
        removed: part.removed,
        present: part.present,
        percent,
        than,
        allowed: part.allowed,
    })
}
