//! Resources that this version cannot decode, as the hub sees them: they exist, and what can be read of them counts. The hub
//! keeps what they could be about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proto::text::without_credentials;
use proto::v1::{self, ObjectState, object_state::Body};

use super::convert::{binding, object};
use crate::exchange::outbox::Outbox;
use crate::retention::{damage, policies};
use crate::world::{Key, Undecodable};

/// A policy that this version cannot decode: what it could match has to be kept, so the hub must know that it exists.
pub fn policy(
    broken: &Undecodable,
    key: &Key,
    id_at: impl Fn(&Key) -> Option<String>,
    outbox: &Outbox,
) -> ObjectState {
    let at = policies::repository_of(key, broken);
    // The hub sets its name in the fleet.
    let spec = v1::RetentionPolicySpec {
        source: String::new(),
        ..policies::unreadable(key, broken, "")
    };
    let kept = broken.text("/status/repositoryID");
    let restic_id = binding(outbox, &spec.uid, &at, id_at(&at), kept);
    let body = v1::PolicyState {
        repository_namespace: at.namespace.to_string(),
        repository_name: at.name.to_string(),
        restic_id,
        spec: Some(spec),
        ..Default::default()
    };
    object(&broken.meta, &[], Body::Policy(body))
}

/// A backup that this version cannot decode: it exists, and its conditions hold, of which the hub reads whether its
/// snapshots have to be kept.
pub fn backup(broken: &Undecodable, key: &Key, id_at: impl Fn(&Key) -> Option<String>) -> ObjectState {
    let at = policies::repository_of(key, broken);
    let active = broken
        .raw
        .pointer("/status/active")
        .and_then(|list| list.as_array());
    let body = v1::BackupState {
        restic_id: id_at(&at).unwrap_or_default(),
        repository_namespace: at.namespace.to_string(),
        repository_name: at.name.to_string(),
        schedule: broken.text("/spec/schedule").unwrap_or_default().to_owned(),
        under_way: active.is_some_and(|active| !active.is_empty()),
        ..Default::default()
    };
    object(&broken.meta, &conditions_of(broken), Body::Backup(body))
}

/// A repository that this version cannot decode: its status counts all the same, and the hub has to know of damage.
pub fn repository(broken: &Undecodable) -> ObjectState {
    let text = |pointer: &str| broken.text(pointer).unwrap_or_default().to_owned();
    let body = v1::RepositoryState {
        url: without_credentials(&text("/spec/repositoryURL")),
        restic_id: text("/status/repositoryID"),
        changed_id: text("/status/changedID"),
        read_only: is_read_only(broken),
        damage: damage::of_undecodable(broken).unwrap_or_default(),
        last_check_result: text("/status/lastIntegrityCheckResult"),
        ..Default::default()
    };
    object(&broken.meta, &conditions_of(broken), Body::Repository(body))
}

/// Whether its spec asks for that, as far as it can be read.
fn is_read_only(broken: &Undecodable) -> bool {
    let read_only = broken.raw.pointer("/spec/readOnly");
    read_only
        .and_then(|read_only| read_only.as_bool())
        .unwrap_or_default()
}

/// Conditions of an object that cannot be decoded, those that can be read.
fn conditions_of(broken: &Undecodable) -> Vec<Condition> {
    let list = broken.raw.pointer("/status/conditions");
    let list = list.and_then(|list| list.as_array()).into_iter().flatten();
    list.filter_map(|condition| serde_json::from_value(condition.clone()).ok())
        .collect()
}
