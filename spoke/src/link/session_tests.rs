use std::sync::Arc;

use crds::{GlobalRetentionPolicy, ResticRepository};
use proto::v1::object_state;
use serde_json::json;

use super::*;
use crate::world::{Key, Undecodable};

fn repository(version: u64, id: Option<&str>) -> (Key, Arc<ResticRepository>) {
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": version.to_string() },
        "spec": { "repositoryURL": "s3:nas", "credentialsSecretRef": { "name": "nas" } },
        "status": { "repositoryID": id },
    });
    (
        Key::new("shop", "nas"),
        Arc::new(serde_json::from_value(repository).unwrap()),
    )
}

fn policy(version: u64, repository: &str, status: Option<&str>) -> (Key, Arc<GlobalRetentionPolicy>) {
    let policy = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "keep", "namespace": "shop", "uid": "p", "resourceVersion": version.to_string() },
        "spec": { "repositoryRef": { "name": repository, "namespace": "shop" }, "schedule": "@daily",
                  "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
        "status": { "repositoryID": status },
    });
    (
        Key::new("shop", "keep"),
        Arc::new(serde_json::from_value(policy).unwrap()),
    )
}

fn at(world: &World, outbox: &Outbox) -> proto::v1::PolicyState {
    let place = (Kind::Policy, Key::new("shop", "keep"));
    match convert::state(world, outbox, &place).and_then(|state| state.body) {
        Some(object_state::Body::Policy(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn drain(session: &mut Session) -> Vec<Body> {
    std::iter::from_fn(|| session.next_part()?.body).collect()
}

#[test]
fn an_inventory_holds_what_is_in_the_caches_though_no_actor_took_a_turn() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let ((r, repository), (p, policy)) = (repository(1, Some("f00d")), policy(1, "nas", None));
    world.repositories.put(r, repository);
    world.policies.put(p, policy);
    let mut session = Session::default();
    session.inventory(&world, &outbox);
    let parts = drain(&mut session);
    let [Body::Inventory(whole)] = parts.as_slice() else {
        panic!("{parts:?}")
    };
    assert!(whole.first && whole.last);
    assert_eq!(whole.updates.len(), 2);
    session.changes(&world, &outbox);
    assert!(!session.is_busy(), "what was marked before is in the inventory");
}

#[test]
fn a_repository_that_becomes_known_changes_what_refers_to_it() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let ((r, unknown), (p, policy)) = (repository(1, None), policy(1, "nas", None));
    world.repositories.put(r.clone(), unknown);
    world.policies.put(p, policy);
    let mut session = Session::default();
    session.inventory(&world, &outbox);
    drain(&mut session);
    world.repositories.put(r, repository(2, Some("f00d")).1);
    session.changes(&world, &outbox);
    let [Body::Delta(delta)] = <[Body; 1]>::try_from(drain(&mut session)).unwrap() else {
        panic!()
    };
    assert_eq!(delta.updates.len(), 2);
    assert_eq!(at(&world, &outbox).restic_id, "f00d");
}

#[test]
fn a_living_policy_keeps_its_last_known_binding() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let (r, known) = repository(1, Some("f00d"));
    let (p, bound) = policy(1, "nas", None);
    world.policies.put(p.clone(), bound);
    assert_eq!(at(&world, &outbox).restic_id, "", "never known");
    world.repositories.put(r.clone(), known);
    assert_eq!(at(&world, &outbox).restic_id, "f00d");
    world.repositories.remove(&r, None);
    assert_eq!(at(&world, &outbox).restic_id, "f00d", "deleted");
    world.repositories.put(r.clone(), repository(3, None).1);
    assert_eq!(
        at(&world, &outbox).restic_id,
        "f00d",
        "made again, not looked at yet"
    );
    world.policies.put(p.clone(), policy(4, "new", None).1);
    assert_eq!(
        at(&world, &outbox).restic_id,
        "f00d",
        "the new reference is not known yet"
    );
    world.policies.put(p, policy(5, "nas", None).1);
    world.repositories.put(r, repository(6, Some("cafe")).1);
    assert_eq!(at(&world, &outbox).restic_id, "cafe", "another id");
}

#[test]
fn the_last_known_binding_survives_a_restart_in_the_policys_status() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let (p, policy) = policy(1, "nas", Some("f00d"));
    world.policies.put(p, policy);
    assert_eq!(at(&world, &outbox).restic_id, "f00d");
}

#[test]
fn a_policy_that_does_not_decode_is_sent_as_unclear_with_its_binding() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let (r, known) = repository(1, Some("f00d"));
    world.repositories.put(r, known);
    let broken = Undecodable {
        meta: kube::core::ObjectMeta {
            uid: Some("p".to_owned()),
            name: Some("keep".to_owned()),
            namespace: Some("shop".to_owned()),
            ..Default::default()
        },
        error: "unknown variant".to_owned(),
        raw: json!({ "spec": { "repositoryRef": { "name": "nas" } } }),
    };
    world.policies.put_undecodable(Key::new("shop", "keep"), broken);
    let state = at(&world, &outbox);
    assert_eq!(state.restic_id, "f00d");
    assert!(state.spec.unwrap().unclear.contains("unknown variant"));
    let mut session = Session::default();
    session.inventory(&world, &outbox);
    drain(&mut session);
    world.policies.remove(&Key::new("shop", "keep"), Some("p"));
    session.changes(&world, &outbox);
    let [Body::Delta(delta)] = <[Body; 1]>::try_from(drain(&mut session)).unwrap() else {
        panic!()
    };
    assert_eq!(delta.gone.len(), 1, "a deleted one is reported as deleted");
}

#[test]
fn a_backup_that_does_not_decode_is_sent_with_its_conditions() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let condition = json!({ "type": "Suspicious", "status": "True", "reason": "SourceEmpty", "message": "m",
                            "lastTransitionTime": "2026-11-25T00:00:00Z" });
    let broken = Undecodable {
        meta: kube::core::ObjectMeta {
            uid: Some("b".to_owned()),
            ..Default::default()
        },
        error: "unknown variant".to_owned(),
        raw: json!({ "spec": { "repositoryRef": { "name": "nas" } },
                     "status": { "conditions": [{ "type": 1 }, condition], "active": ["run-1"] } }),
    };
    world.backups.put_undecodable(Key::new("shop", "orders"), broken);
    let mut session = Session::default();
    session.inventory(&world, &outbox);
    let parts = drain(&mut session);
    let [Body::Inventory(whole)] = parts.as_slice() else {
        panic!("{parts:?}")
    };
    assert_eq!(whole.updates[0].uid, "b");
    let place = (Kind::Backup, Key::new("shop", "orders"));
    let state = convert::state(&world, &outbox, &place).unwrap();
    assert_eq!(state.conditions[0].r#type, "Suspicious");
    let Some(object_state::Body::Backup(backup)) = state.body else {
        panic!()
    };
    assert!(backup.under_way);
}

#[test]
fn a_repository_that_does_not_decode_is_sent_with_its_damage() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let (p, policy) = policy(1, "nas", None);
    world.policies.put(p, policy);
    let mut session = Session::default();
    session.hello(&world, &outbox);
    let condition = json!({ "type": "Degraded", "status": "True", "reason": "RepositoryDamaged", "message": "m",
                            "lastTransitionTime": "2026-11-25T00:00:00Z" });
    let broken = Undecodable {
        meta: kube::core::ObjectMeta {
            uid: Some("r".to_owned()),
            ..Default::default()
        },
        error: "unknown variant".to_owned(),
        raw: json!({ "spec": { "repositoryURL": "rest:https://fleet:hidden@nas:8000/", "initialize": "New" },
                     "status": { "repositoryID": "f00d", "conditions": [condition],
                                 "integrityCheck": { "damage": { "reason": "MissingPacks", "message": "pack 1" } } } }),
    };
    world
        .repositories
        .put_undecodable(Key::new("shop", "nas"), broken);
    session.changes(&world, &outbox);
    let [Body::Delta(delta)] = <[Body; 1]>::try_from(drain(&mut session)).unwrap() else {
        panic!()
    };
    assert_eq!(delta.updates.len(), 2, "what is bound to it as well");
    session.inventory(&world, &outbox);
    let parts = drain(&mut session);
    let [Body::Inventory(whole)] = parts.as_slice() else {
        panic!("{parts:?}")
    };
    assert_eq!(whole.updates.len(), 2);
    let place = (Kind::Repository, Key::new("shop", "nas"));
    let state = convert::state(&world, &outbox, &place).unwrap();
    assert_eq!(state.conditions[0].r#type, "Degraded");
    assert!(!format!("{state:?}").contains("hidden"));
    let Some(object_state::Body::Repository(repository)) = state.body else {
        panic!()
    };
    assert_eq!(repository.restic_id, "f00d");
    assert!(repository.damage.contains("pack 1"), "{}", repository.damage);
    assert_eq!(at(&world, &outbox).restic_id, "f00d");
}

#[test]
fn a_name_with_a_new_uid_is_one_tombstone_and_one_state() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let (p, old) = policy(1, "nas", None);
    world.policies.put(p.clone(), old);
    let mut session = Session::default();
    session.hello(&world, &outbox);
    let mut new = GlobalRetentionPolicy::clone(&policy(2, "nas", None).1);
    new.metadata.uid = Some("q".to_owned());
    world.policies.put(p, Arc::new(new));
    session.changes(&world, &outbox);
    let [Body::Delta(delta)] = <[Body; 1]>::try_from(drain(&mut session)).unwrap() else {
        panic!()
    };
    assert_eq!(
        (delta.gone[0].uid.as_str(), delta.updates[0].uid.as_str()),
        ("p", "q")
    );
    assert!(!delta.more);
}

#[test]
fn changes_that_do_not_fit_are_sent_as_parts_of_one() {
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let mut session = Session::encoding(|_| vec![0; 40_000]);
    session.hello(&world, &outbox);
    for n in 0..3 {
        let mut repository = ResticRepository::clone(&repository(1, None).1);
        repository.metadata.uid = Some(format!("r{n}"));
        world
            .repositories
            .put(Key::new("shop", format!("r{n}")), Arc::new(repository));
    }
    session.changes(&world, &outbox);
    let more: Vec<bool> = drain(&mut session)
        .into_iter()
        .map(|body| matches!(body, Body::Delta(Delta { more: true, .. })))
        .collect();
    assert_eq!(more, [true, true, false]);
}

#[test]
fn a_state_is_bounded_by_its_encoded_size() {
    let mut state = convert::state(
        &{
            let world = World::default();
            let (p, policy) = policy(1, "nas", None);
            world.policies.put(p, policy);
            world
        },
        &Outbox::default(),
        &(Kind::Policy, Key::new("shop", "keep")),
    )
    .unwrap();
    let Some(object_state::Body::Policy(body)) = &mut state.body else {
        panic!()
    };
    let spec = body.spec.as_mut().unwrap();
    spec.rules = vec![
        proto::v1::RetentionRule {
            hostname: "h".repeat(250),
            ..Default::default()
        };
        20_000
    ];
    let bytes = convert::encode(&state);
    assert!(bytes.len() < proto::MESSAGE_MAX / 2);
    let read = ObjectState::decode(bytes.as_slice()).unwrap();
    let Some(object_state::Body::Policy(body)) = read.body else {
        panic!()
    };
    assert!(body.spec.unwrap().unclear.contains("too large"));
}
