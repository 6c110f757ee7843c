//! The plan of a retention run as a document: one line of JSON in the pod's log, kept by the hub, read by people and
//! by the next run's guard. And the hashes over it that pod, hub and readers must compute alike.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::v1::{Baseline, PolicyFault};

/// The line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanLine {
    pub plan: PlanDocument,
}

/// A plan. Lists of snapshots hold all of them; where the document would be too long, entries have an id only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PlanDocument {
    /// [`plan_hash`] of the snapshots in `remove`.
    pub hash: String,
    pub restic_id: String,
    /// Snapshots in the repository before the run.
    pub snapshots: usize,
    /// Nothing is removed: all that the plan would remove is only shown.
    pub preview: bool,
    pub remove: Vec<Removal>,
    /// What policies in preview would remove, while others of this plan are removed now.
    pub previewed: Vec<Removal>,
    /// All policies that took part.
    pub policies: Vec<PlanPolicy>,
    /// Snapshots that some policy would remove and another keeps.
    pub kept_by_others: usize,
    /// The policies that keep them.
    pub keepers: Vec<Keeper>,
    /// Groups that lose snapshots.
    pub groups: Vec<Group>,
    /// Snapshots that stay because no policy that would remove them may do so.
    pub out_of_reach: Vec<OutOfReach>,
    /// Why the plan waits for approval, most important first.
    pub guards: Vec<Guard>,
    /// Policies whose selectors match nothing.
    pub unmatched: Vec<String>,
    /// Policies that could not be evaluated; what they could match is kept.
    pub faults: Vec<PolicyFault>,
    /// Snapshots of each cluster and group after the plan, for the guard of the next run.
    pub left: Vec<Baseline>,
    /// Parts of the document were left out to bound its length.
    pub shortened: bool,
}

/// A snapshot that is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Removal {
    /// 64 hex digits.
    pub id: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Policies that remove it and may do so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// A policy that took part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanPolicy {
    /// "<cluster>/<namespace>/<name>".
    pub source: String,
    pub generation: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
}

/// A policy that keeps what others would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keeper {
    pub source: String,
    pub snapshots: usize,
}

/// Snapshots of one backup with one set of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    pub host: String,
    pub paths: Vec<String>,
    pub tags: Vec<String>,
    pub keep: usize,
    pub remove: usize,
    /// Time of the oldest snapshot that is removed.
    pub oldest: Option<String>,
}

/// Snapshots that no policy may remove without naming them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutOfReach {
    /// Empty for snapshots without a cluster.
    pub cluster: String,
    /// Set where a bound cluster has this name and another uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub snapshots: usize,
}

impl OutOfReach {
    /// Whose they are, and what would reach them.
    #[must_use]
    pub fn words(&self) -> String {
        let (whose, tag) = match (self.cluster.as_str(), self.uid.as_str()) {
            ("", _) => (
                "no cluster".to_owned(),
                "one of their tags, or their hostname,".to_owned(),
            ),
            (name, "") => (
                format!("cluster {name}, which is not bound here"),
                format!("tag fleet.cluster={name}"),
            ),
            (name, uid) => (
                format!("another cluster named {name}"),
                format!("tag fleet.cluster-uid={uid}"),
            ),
        };
        format!("{whose}: a selector with {tag} would reach them")
    }
}

/// Why a plan waits for approval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// "LastOfGroup", "OverGuard" or "NewCluster".
    pub reason: String,
    pub message: String,
}

/// Hash of a plan: of the repository and the full ids of the snapshots to remove. It changes when any of them does,
/// and not when others are added to the repository.
#[must_use]
pub fn plan_hash<'a>(restic_id: &str, ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    let mut digest = Sha256::new();
    digest.update(restic_id.as_bytes());
    for id in ids {
        digest.update(b"\n");
        digest.update(id.as_bytes());
    }
    hex(&digest.finalize())
}

/// Whether a text is an id as restic writes it: 64 lower-case hex digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(hex)
}

/// Key of a cluster's [`Baseline`]; an empty name stands for snapshots without a cluster.
#[must_use]
pub fn cluster_key(cluster: &str) -> String {
    format!("cluster/{cluster}")
}

/// Key of a group's [`Baseline`]. The order of paths and tags does not matter.
#[must_use]
pub fn group_key(host: &str, paths: &[String], tags: &[String]) -> String {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    add(host);
    for list in [paths, tags] {
        let sorted: BTreeSet<&String> = list.iter().collect();
        add(&sorted.len().to_string());
        sorted.into_iter().for_each(|text| add(text));
    }
    let mut text = hex(&digest.finalize());
    text.truncate(16);
    format!("group/{text}")
}

/// Key of the first entry of a list of [`Baseline`] that has every cluster and group.
pub const WHOLE: &str = "whole";
/// Key of the first entry of a list that lacks some.
pub const CUT: &str = "cut";
/// Lengths to which versions before [`WHOLE`] cut their lists, without a mark.
const UNMARKED: [usize; 5] = [24, 18, 12, 6, 3];

/// The list with its mark, which comes first: the last entries are the ones that are cut off.
#[must_use]
pub fn whole(mut list: Vec<Baseline>) -> Vec<Baseline> {
    list.insert(0, mark(WHOLE));
    list
}

/// Cuts a list to `most` entries besides its mark. A list without an entry says nothing, and gets no mark that would say that
/// nothing was left.
pub fn cut(list: &mut Vec<Baseline>, most: usize) {
    if list.is_empty() {
        return;
    }
    let known = is_cut(list);
    list.retain(|entry| !is_mark(&entry.key));
    let key = if known || list.len() > most { CUT } else { WHOLE };
    list.truncate(most);
    list.insert(0, mark(key));
}

/// Gives a list the mark that it may lack some.
pub fn mark_cut(list: &mut Vec<Baseline>) {
    list.retain(|entry| !is_mark(&entry.key));
    list.insert(0, mark(CUT));
}

/// Whether a list lacks clusters or groups, or may lack some: then it says nothing about one that is not in it.
#[must_use]
pub fn is_cut(list: &[Baseline]) -> bool {
    let has = |key: &str| list.iter().any(|entry| entry.key == key);
    has(CUT) || (!has(WHOLE) && UNMARKED.contains(&list.len()))
}

/// Whether an entry is the mark of its list, and no cluster or group.
#[must_use]
pub fn is_mark(key: &str) -> bool {
    [WHOLE, CUT].contains(&key)
}

fn mark(key: &str) -> Baseline {
    Baseline {
        key: key.to_owned(),
        left: 0,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_over_repository_and_ids_in_any_order() {
        let hash = plan_hash("r", ["b", "a"]);
        assert_eq!(hash, plan_hash("r", ["a", "b"]));
        assert_ne!(hash, plan_hash("s", ["a", "b"]));
        assert_ne!(hash, plan_hash("r", ["a", "b", "c"]));
        // sha256("r\na\nb")
        assert_eq!(hash.len(), 64);
    }

    #[test]
    fn ids_are_64_lower_case_hex_digits() {
        assert!(is_id(&"0af9".repeat(16)));
        for wrong in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_group_is_the_same_in_any_order_and_another_with_other_parts() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let key = group_key("h", &list("/a /b"), &list("x y"));
        assert_eq!(key, group_key("h", &list("/b /a"), &list("y x")));
        assert_ne!(key, group_key("h", &list("/a"), &list("/b x y")));
        assert_eq!(key.len(), "group/".len() + 16);
    }

    #[test]
    fn a_list_that_was_cut_says_so_however_often_it_is_cut() {
        let list = |n: u32| -> Vec<Baseline> {
            let entry = |at| Baseline {
                key: format!("group/{at}"),
                left: at,
            };
            (0..n).map(entry).collect()
        };
        let mut long = whole(list(30));
        assert!(!is_cut(&long) && long.len() == 31);
        cut(&mut long, 30);
        assert!(!is_cut(&long) && long.len() == 31, "it fits");
        cut(&mut long, 24);
        assert!(is_cut(&long) && long.len() == 25);
        cut(&mut long, 24);
        assert!(is_cut(&long) && long.len() == 25);
        cut(&mut long, 0);
        assert!(is_cut(&long) && long.len() == 1);
        let mut nothing = Vec::new();
        cut(&mut nothing, 24);
        assert!(nothing.is_empty(), "it is not known what was left");
        // Lists of versions without the mark.
        assert!(is_cut(&list(24)) && is_cut(&list(6)) && !is_cut(&list(7)) && !is_cut(&[]));
        assert!(!is_cut(&whole(list(24))));
    }
}
