//! What the policies of this cluster make a run without a hub. Pure.

use std::collections::HashSet;

use crds::retention::SnapshotsLeft;
use crds::rules::PLAIN_VERSION;
use crds::{GlobalRetentionPolicyStatus, ResticRepository};
use proto::hold::{SUSPICIOUS, hold};
use proto::plan::mark_cut;
use proto::v1::{Baseline, RetentionPolicySpec};

use super::damage;
use super::policies::{self, spec_of};
use crate::world::{Index, Key, Stored as _, World};

/// The policies of this cluster that are bound to a physical repository, as a run without a hub takes them. One that cannot
/// be decoded, or whose repository is not known, may keep something here: it is unclear, and what it could match stays.
pub(super) fn policies(world: &World, cluster: &str, restic_id: &str) -> Vec<RetentionPolicySpec> {
    let policy = |key: &Key| {
        if let Some(broken) = world.policies.undecodable(key) {
            let spec = policies::unreadable(key, &broken, cluster);
            let kept = broken.text("/status/repositoryID").map(str::to_owned);
            return Some((policies::repository_of(key, &broken), kept, spec));
        }
        let policy = world.policies.get(key)?;
        let reference = &policy.spec.repository_ref;
        let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
        let kept = policy.status.as_ref().and_then(|s| s.repository_id.clone());
        Some((at, kept, spec_of(key, &policy, cluster, restic_id)))
    };
    let keys = world.policies.all_keys();
    let found = keys.iter().filter_map(|key| {
        let (at, kept, spec) = policy(key)?;
        match policies::restic_id(world, &at).or(kept) {
            Some(id) => (id == restic_id).then_some(spec),
            None => Some(RetentionPolicySpec {
                unclear: "its repository is not known at the moment, so it may be this one".to_owned(),
                ..spec
            }),
        }
    });
    let mut found: Vec<RetentionPolicySpec> = found.chain(holds(world, cluster)).collect();
    found.sort_by(|a, b| a.source.cmp(&b.source));
    found
}

/// Why an operator of some namespaces alone removes nothing, in words; `None` if it may. Without a hub another operator of the
/// same cluster would have its name, its uid and a lock of its own, and neither would see the policies of the other.
pub(super) fn hub_required(is_partial: bool, shared: bool) -> Option<String> {
    let text = "this operator watches some namespaces alone (--namespaces) and has no hub: policies elsewhere in this cluster may keep \
                what it would remove, and it cannot see them. Connect it to a hub, or let it watch all namespaces";
    (is_partial && !shared).then(|| text.to_owned())
}

/// Why nothing may be removed: the damage that checks of this cluster have found. Empty if there is none.
pub(super) fn damage(world: &World, restic_id: &str) -> String {
    let same = world.repositories.by(Index::ResticId, &Key::new("", restic_id));
    let decoded = same.iter().filter_map(|(key, repository)| {
        let damage = crds::integrity::damage_of(repository)?;
        Some((key.clone(), damage))
    });
    let keys = world.repositories.all_keys();
    let undecodable = keys.into_iter().filter_map(|key| {
        let broken = world.repositories.undecodable(&key)?;
        let its = broken.text("/status/repositoryID") == Some(restic_id);
        let damage = damage::of_undecodable(&broken).filter(|_| its)?;
        Some((key, damage))
    });
    let found = decoded.chain(undecodable).next();
    found.map_or_else(String::new, |(key, damage)| {
        format!("ResticRepository {key}: {damage}")
    })
}

/// The resource at whose location another repository lies than the one that is known, where this is one of the two, in words;
/// `None` if there is none, or a person has accepted it.
pub(super) fn changed(world: &World, restic_id: &str) -> Option<String> {
    let is_one = |repository: &ResticRepository| {
        let status = repository.status.as_ref();
        status.is_some_and(|s| {
            let known = s.repository_id.as_deref() == Some(restic_id);
            s.changed_id
                .as_deref()
                .is_some_and(|other| known || other == restic_id)
        })
    };
    let found = world.repositories.filter(|_, repository| is_one(repository));
    let (key, _) = found.into_iter().next()?;
    Some(format!(
        "another repository lies at the location of ResticRepository {key} than the one that was known, and this is one of the \
         two; nothing is removed from either until a person has accepted it"
    ))
}

/// Snapshots of suspicious backups stay, in whatever repository they are: a spec that names another one now says nothing of
/// where they were stored. Those of a backup that this version cannot decode stay as well.
pub(super) fn holds(world: &World, cluster: &str) -> Vec<RetentionPolicySpec> {
    let of = |key: &Key, uid: &str| hold(cluster, &key.to_string(), uid, SUSPICIOUS, PLAIN_VERSION);
    let keys = world.backups.all_keys();
    let holds = keys.iter().filter_map(|key| {
        if let Some(broken) = world.backups.undecodable(key) {
            let suspicious = broken.raw.pointer("/status/suspicious")?.is_object();
            return suspicious.then(|| of(key, broken.meta.uid.as_deref().unwrap_or_default()));
        }
        let backup = world.backups.get(key)?;
        backup.status.as_ref()?.suspicious.as_ref()?;
        Some(of(key, backup.uid()))
    });
    holds.collect()
}

/// What the last applied run left, as the policies of this cluster know it: the guard of a run without a hub.
pub(super) fn baseline(world: &World, cluster: &str, restic_id: &str) -> Vec<Baseline> {
    let own: HashSet<String> = policies(world, cluster, restic_id)
        .into_iter()
        .map(|p| p.uid)
        .collect();
    let all = world.policies.filter(|_, _| true).into_iter();
    let known: Vec<_> = all
        .filter(|(_, policy)| own.contains(policy.uid()))
        .filter_map(|(_, policy)| policy.status.clone())
        .filter(|status| !status.left.is_empty())
        .collect();
    let time = |status: &GlobalRetentionPolicyStatus| status.last_run.as_ref().map(|time| time.0);
    let last = known.iter().map(time).max();
    let newest = known
        .into_iter()
        .map(|status| (leaves(&status), status))
        .max_by_key(|(exact, status)| (*exact, time(status)));
    let Some((exact, status)) = newest else {
        return Vec::new();
    };
    // A later run of another policy may have left figures before it failed: then what is not in the list is not known.
    let exact = exact && last == Some(time(&status));
    let figure = |left: SnapshotsLeft| Baseline {
        key: left.key,
        left: u32::try_from(left.snapshots).unwrap_or_default(),
    };
    let mut list: Vec<Baseline> = status.left.into_iter().map(figure).collect();
    if !exact {
        mark_cut(&mut list);
    }
    list
}

/// Whether `left` is of the policy's last run. Only an applied run sets it: beside a later run of another result it is older
/// than `last_run`.
fn leaves(status: &GlobalRetentionPolicyStatus) -> bool {
    let result = status.last_run_result.as_deref();
    result.is_some_and(|result| ["Applied", "NothingToRemove"].contains(&result))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{Value, json};

    use super::*;
    use crate::world::Undecodable;

    fn repository(world: &World, name: &str, id: Option<&str>) {
        let status = id.map_or(json!({}), |id| json!({ "repositoryID": id }));
        let repository = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } }, "status": status,
        });
        let repository = Arc::new(serde_json::from_value(repository).unwrap());
        world.repositories.put(Key::new("ns", name), repository);
    }

    fn policy(world: &World, name: &str, repository: &str, status: &Value) {
        let policy = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" },
            "spec": { "repositoryRef": { "name": repository }, "schedule": "@daily",
                      "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
            "status": status,
        });
        let policy = Arc::new(serde_json::from_value(policy).unwrap());
        world.policies.put(Key::new("ns", name), policy);
    }

    fn broken(world: &World, name: &str, repository: &str, status: &Value) {
        let meta = ObjectMeta {
            uid: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let raw = json!({ "spec": { "repositoryRef": { "name": repository }, "policies": "new" }, "status": status });
        let error = "policies: invalid type".to_owned();
        world
            .policies
            .put_undecodable(Key::new("ns", name), Undecodable { meta, error, raw });
    }

    /// Policies of the run on repository id, and whether each is unclear.
    fn taken(world: &World) -> Vec<(String, bool)> {
        let specs = policies(world, "c", "id").into_iter();
        specs
            .map(|spec| (spec.source, !spec.unclear.is_empty()))
            .collect()
    }

    #[test]
    fn the_guard_takes_the_figures_of_the_last_run_that_was_carried_out() {
        let world = World::default();
        repository(&world, "nas", Some("id"));
        let status = |result: &str, second: u32, left: u32| {
            json!({ "lastRun": format!("2026-01-01T00:00:{second:02}Z"), "lastRunResult": result,
                    "left": [{ "key": "whole", "snapshots": 0 }, { "key": "cluster/c", "snapshots": left }] })
        };
        let of = |world: &World| {
            let list = baseline(world, "c", "id");
            let left = list.iter().find(|entry| entry.key == "cluster/c").unwrap().left;
            (left, proto::plan::is_cut(&list))
        };
        policy(&world, "failed", "nas", &status("Failed", 9, 3));
        assert_eq!(of(&world), (3, true), "older than its last run");
        policy(&world, "applied", "nas", &status("Applied", 5, 100));
        assert_eq!(
            of(&world),
            (100, true),
            "the failed one may have left others since"
        );
        policy(&world, "nothing", "nas", &status("NothingToRemove", 10, 90));
        assert_eq!(of(&world), (90, false));
    }

    #[test]
    fn snapshots_of_a_suspicious_backup_are_kept() {
        let world = World::default();
        repository(&world, "nas", Some("id"));
        repository(&world, "other", Some("other"));
        let backup = |name: &str, repository: &str, suspicious: Value| {
            let backup = json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
                "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" },
                "spec": { "repositoryRef": { "name": repository }, "schedule": "@daily", "source": { "pvc": { "claimName": "d" } } },
                "status": { "suspicious": suspicious },
            });
            world.backups.put(
                Key::new("ns", name),
                Arc::new(serde_json::from_value(backup).unwrap()),
            );
        };
        let run = json!({ "snapshotID": "s", "bytes": 0, "usualBytes": 9 });
        backup("well", "nas", Value::Null);
        backup("emptied", "nas", run.clone());
        backup("elsewhere", "other", run);
        let undecodable = |name: &str, suspicious: Value| {
            let meta = ObjectMeta {
                uid: Some(name.to_owned()),
                ..ObjectMeta::default()
            };
            let raw = json!({ "spec": { "source": "new" }, "status": { "suspicious": suspicious } });
            let error = "source: invalid type".to_owned();
            let broken = Undecodable { meta, error, raw };
            world.backups.put_undecodable(Key::new("ns", name), broken);
        };
        undecodable("newer", json!({ "snapshotID": "s" }));
        undecodable("newer-well", Value::Null);
        let held = policies(&world, "c", "id");
        let tags: Vec<_> = held.iter().map(|spec| spec.rules[0].tags.clone()).collect();
        let of = |name: &str| vec!["fleet.cluster=c".to_owned(), format!("fleet.backup=ns/{name}")];
        // The one that names another repository now may have named this one when it was well.
        assert_eq!(tags, ["elsewhere", "emptied", "newer"].map(of));
        assert!(held.iter().all(|spec| !spec.unclear.is_empty()));
    }

    #[test]
    fn damage_of_a_repository_that_does_not_decode_stops_removals() {
        let world = World::default();
        let undecodable = |name: &str, id: &str, check: &Value| {
            let raw = json!({ "spec": { "repositoryURL": ["new"] },
                              "status": { "repositoryID": id, "integrityCheck": check } });
            let broken = Undecodable {
                meta: ObjectMeta {
                    uid: Some(name.to_owned()),
                    ..ObjectMeta::default()
                },
                error: "repositoryURL: invalid type".to_owned(),
                raw,
            };
            world.repositories.put_undecodable(Key::new("ns", name), broken);
        };
        undecodable("well", "id", &json!({ "message": "no errors" }));
        undecodable(
            "elsewhere",
            "other",
            &json!({ "damage": { "reason": "MissingPacks", "message": "pack 2" } }),
        );
        assert_eq!(damage(&world, "id"), "");
        undecodable(
            "nas",
            "id",
            &json!({ "damage": { "reason": "MissingPacks", "message": "pack 1" } }),
        );
        let text = damage(&world, "id");
        assert!(
            text.starts_with("ResticRepository ns/nas: ")
                && text.contains("pack 1")
                && text.contains("repair index"),
            "{text}"
        );
        // Not even the status is as it is known here.
        undecodable(
            "nas",
            "id",
            &json!({ "damage": { "message": "pack 1", "parts": "new" } }),
        );
        assert!(damage(&world, "id").contains("pack 1"));
        undecodable("nas", "id", &json!({ "damage": null }));
        assert_eq!(damage(&world, "id"), "");
        policy(&world, "keep", "nas", &json!({}));
        assert_eq!(
            taken(&world),
            [("c/ns/keep".to_owned(), false)],
            "its id is known all the same"
        );
        // A state that was decoded before stays in the store, and is out of date.
        repository(&world, "was-well", None);
        undecodable("was-well", "id", &json!({ "damage": { "message": "pack 3" } }));
        assert!(damage(&world, "id").contains("pack 3"));
        policy(&world, "late", "was-well", &json!({}));
        assert_eq!(
            taken(&world),
            [("c/ns/keep".to_owned(), false), ("c/ns/late".to_owned(), false)]
        );
    }

    #[test]
    fn what_is_not_known_of_a_policy_keeps_what_it_could_match() {
        let world = World::default();
        repository(&world, "nas", Some("id"));
        repository(&world, "other", Some("other"));
        repository(&world, "new", None);
        policy(&world, "clear", "nas", &json!({}));
        policy(&world, "elsewhere", "other", &json!({}));
        policy(&world, "undecided", "new", &json!({}));
        // Their repositories were deleted: the last known id counts.
        policy(&world, "deleted", "gone", &json!({ "repositoryID": "id" }));
        policy(&world, "moved", "gone", &json!({ "repositoryID": "other" }));
        broken(&world, "newer", "nas", &json!({}));
        broken(&world, "newer-elsewhere", "other", &json!({}));
        broken(&world, "newer-deleted", "gone", &json!({ "repositoryID": "id" }));
        let expected = [
            ("c/ns/clear", false),
            ("c/ns/deleted", false),
            ("c/ns/newer", true),
            ("c/ns/newer-deleted", true),
            ("c/ns/undecided", true),
        ];
        assert_eq!(
            taken(&world),
            expected.map(|(name, unclear)| (name.to_owned(), unclear))
        );
    }
}
