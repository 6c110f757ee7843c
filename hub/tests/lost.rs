//! A cluster that was lost, and a hub that was: what can be made again of the other.

use std::collections::BTreeSet;

use crate::harness::{Fleet, ID, Spoke, keep_last, object, policy, repository};
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::manifest_part::Body as Part;
use proto::v1::object_state::Body as Object;
use proto::v1::{
    AcceptClusterRequest, AuditRequest, BackupState, BindRequest, Collection, Hello, ListRequest, Manifest,
    ManifestsHead, ManifestsRequest, ObjectState, RestoreState, Scope,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

fn with(mut state: ObjectState, manifest: &str) -> ObjectState {
    state.manifest = manifest.to_owned();
    state
}

fn backup(name: &str) -> ObjectState {
    let body = BackupState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        schedule: "@daily".to_owned(),
        ..BackupState::default()
    };
    object(name, Object::Backup(body))
}

fn all() -> Vec<ObjectState> {
    let mut generated = policy(keep_last(1));
    generated.uid = "of-orders".to_owned();
    generated.name.clone_from(&generated.uid);
    generated.generated = true;
    vec![
        with(backup("orders"), "a backup"),
        // Of a spoke that does not send it.
        backup("old"),
        with(policy(keep_last(3)), "a policy"),
        generated,
        with(repository(ID), "a repository"),
        object("back", Object::Restore(RestoreState::default())),
    ]
}

async fn manifests(channel: Channel, cluster: &str) -> Result<(ManifestsHead, Vec<Manifest>), Status> {
    reported_by(channel, cluster, "").await
}

async fn reported_by(
    channel: Channel,
    cluster: &str,
    uid: &str,
) -> Result<(ManifestsHead, Vec<Manifest>), Status> {
    let mut client = FleetHubClient::new(channel);
    let request = ManifestsRequest {
        cluster: cluster.to_owned(),
        reported_uid: uid.to_owned(),
    };
    let mut parts = client.manifests(request).await?.into_inner();
    let Some(Part::Head(head)) = parts.message().await?.unwrap().body else {
        panic!("no head")
    };
    let mut found = Vec::new();
    while let Some(part) = parts.message().await? {
        match part.body {
            Some(Part::Manifest(manifest)) => found.push(manifest),
            other => panic!("{other:?}"),
        }
    }
    Ok((head, found))
}

async fn arrived(fleet: &Fleet, cluster: &str, count: usize) {
    fleet
        .until("the inventory", async |fleet| {
            fleet.running.hub.read(|inventory| {
                let member = inventory.member(cluster);
                member.is_some_and(|member| member.objects.len() == count)
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_clusters_resources_are_kept_for_the_day_on_which_they_are_needed() {
    let fleet = Fleet::new().await;
    let hello = Hello {
        cluster_uid: "uid-of-a".to_owned(),
        ..Hello::default()
    };
    let spoke = fleet.spoke_that_says("a", hello).await;
    spoke.tell(all()).await;
    arrived(&fleet, "a", 6).await;
    let held = fleet.running.hub.read(|inventory| {
        let objects = inventory.member("a").unwrap().objects.values();
        objects.map(|held| format!("{held:?}")).collect::<String>()
    });
    assert!(
        held.contains("nas") && !held.contains("a repository") && !held.contains("a policy"),
        "it costs no memory: {held}"
    );
    drop(spoke);
    // Also after the hub has started again.
    let fleet = fleet.restart().await;
    let (head, found) = manifests(fleet.view_as("viewer/ann").await, "a").await.unwrap();
    assert_eq!((head.cluster_uid.as_str(), head.complete), ("uid-of-a", true));
    assert!(head.as_of.is_some());
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|one| (one.kind.as_str(), one.name.as_str(), one.manifest.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("ResticRepository", "nas", "a repository"),
            ("ResticBackup", "old", ""),
            ("ResticBackup", "orders", "a backup"),
            ("GlobalRetentionPolicy", "p", "a policy"),
        ],
        "repositories first; neither what comes back with another resource nor restores"
    );
    let unknown = manifests(fleet.view_as("viewer/ann").await, "z")
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_a_part_of_a_cluster_gets_that_part_and_is_told() {
    let fleet = Fleet::new().await;
    let hello = Hello {
        cluster_uid: "lost".to_owned(),
        ..Hello::default()
    };
    let spoke = fleet.spoke_that_says("a", hello).await;
    let mut other = with(backup("theirs"), "not to be seen");
    other.namespace = "other".to_owned();
    let mut states = all();
    states.push(other);
    spoke.tell(states).await;
    arrived(&fleet, "a", 7).await;
    let mut admin = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let bind = BindRequest {
        user: "carl".to_owned(),
        rights: "viewer".to_owned(),
        scope: Some(Scope {
            namespaces: vec!["ns".to_owned()],
            ..Scope::default()
        }),
        ..BindRequest::default()
    };
    admin.bind(bind).await.unwrap();
    let (head, found) = manifests(fleet.view_as("person/carl").await, "a").await.unwrap();
    assert!(!head.complete, "there may be more than is seen");
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|one| one.namespace == "ns"), "{found:?}");
    // And of one whose name another one has by now.
    drop(spoke);
    let accept = AcceptClusterRequest {
        cluster: "a".to_owned(),
        cluster_uid: "new".to_owned(),
    };
    fleet.operator().await.accept_cluster(accept).await.unwrap();
    let hello = Hello {
        cluster_uid: "new".to_owned(),
        ..Hello::default()
    };
    let new = fleet.spoke_that_says("a", hello).await;
    new.tell(Vec::new()).await;
    arrived(&fleet, "a", 0).await;
    let carl = fleet.view_as("person/carl").await;
    let (head, none) = manifests(carl.clone(), "a").await.unwrap();
    assert_eq!((head.replaced[0].resources, none.len()), (4, 0));
    let uid = &head.replaced[0].cluster_uid;
    let (head, found) = reported_by(carl, "a", uid).await.unwrap();
    assert!(!head.complete && found.len() == 4);
    assert!(found.iter().all(|one| one.namespace == "ns"), "{found:?}");
    let refused = manifests(fleet.view_as("person/nobody").await, "a")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// Who follows the sentence from left to right lets the new cluster join first, and its inventory is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_under_the_name_of_a_lost_one_does_not_take_its_manifests_away() {
    let fleet = Fleet::new().await;
    let says = |uid: &str| Hello {
        cluster_uid: uid.to_owned(),
        ..Hello::default()
    };
    let spoke = fleet.spoke_that_says("a", says("lost")).await;
    let mut states = all();
    // A spoke of an earlier version sends it so where any other program made it; only policies come back with a backup.
    let mut owned = backup("owned");
    owned.generated = true;
    states.push(owned);
    let Some(Object::Backup(body)) = &mut states[0].body else {
        panic!("a backup")
    };
    body.last_success = Some(proto::time::from_unix(1_795_000_000));
    spoke.tell(states).await;
    arrived(&fleet, "a", 7).await;
    drop(spoke);
    let mut admin = fleet.operator().await;
    let accept = AcceptClusterRequest {
        cluster: "a".to_owned(),
        cluster_uid: "new".to_owned(),
    };
    admin.accept_cluster(accept).await.unwrap();
    let (head, before) = manifests(fleet.view_as("viewer/ann").await, "a").await.unwrap();
    assert_eq!(
        (
            head.cluster_uid.as_str(),
            head.reported_uid.as_str(),
            head.complete
        ),
        ("new", "lost", true)
    );
    let names: Vec<&str> = before.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["nas", "old", "orders", "owned", "p"]);
    let success = |one: &Manifest| {
        one.history
            .as_ref()
            .is_some_and(|history| history.last_success.is_some())
    };
    assert!(success(&before[2]) && !success(&before[1]), "{before:?}");

    let spoke = fleet.spoke_that_says("a", says("new")).await;
    spoke.tell(vec![with(repository(ID), "anew")]).await;
    arrived(&fleet, "a", 1).await;
    drop(spoke);
    let fleet = fleet.restart().await;
    let (head, found) = manifests(fleet.view_as("viewer/ann").await, "a").await.unwrap();
    assert_eq!((head.reported_uid.as_str(), found.len()), ("new", 1));
    let replaced: Vec<(&str, u64)> = head
        .replaced
        .iter()
        .map(|one| (one.cluster_uid.as_str(), one.resources))
        .collect();
    assert_eq!(replaced, [("lost", 5)]);
    assert!(head.replaced[0].last_heard.is_some() && head.replaced[0].kept_until.is_some());
    let (head, found) = reported_by(fleet.view_as("viewer/ann").await, "a", "lost")
        .await
        .unwrap();
    assert_eq!((head.reported_uid.as_str(), head.complete), ("lost", true));
    assert_eq!(found, before, "all of it");
    let unknown = reported_by(fleet.view_as("viewer/ann").await, "a", "other")
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("new, lost"), "{unknown:?}");
}

/// Keys of all rows.
async fn rows(fleet: &Fleet) -> BTreeSet<String> {
    let mut view = fleet.operator().await;
    let mut keys = BTreeSet::new();
    for collection in [
        Collection::Clusters,
        Collection::Repositories,
        Collection::Backups,
        Collection::Policies,
        Collection::Restores,
    ] {
        let request = ListRequest {
            collection: collection.into(),
            ..ListRequest::default()
        };
        let answer = view.list(request).await.unwrap().into_inner();
        let prefix = format!("{collection:?} ");
        keys.extend(answer.rows.into_iter().map(|row| prefix.clone() + &row.key));
    }
    keys
}

async fn decisions(fleet: &Fleet) -> usize {
    let request = AuditRequest {
        limit: 50,
        ..AuditRequest::default()
    };
    let mut view = fleet.operator().await;
    view.audit(request).await.unwrap().into_inner().decisions.len()
}

async fn report(fleet: &Fleet) -> (Spoke, Spoke) {
    let (mut a, b) = (fleet.spoke("a").await, fleet.spoke("b").await);
    a.tell(all()).await;
    b.tell(vec![backup("files")]).await;
    arrived(fleet, "a", 6).await;
    arrived(fleet, "b", 1).await;
    fleet.until_binding("a", ID, "bound").await;
    if fleet
        .running
        .hub
        .read(|i| !i.bindings().get("a", ID).unwrap().proven)
    {
        a.prove(ID, 1).await;
    }
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_hub_has_all_that_its_clusters_report_and_nothing_that_people_had_decided() {
    let fleet = Fleet::new().await;
    let spokes = report(&fleet).await;
    let mut admin = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let bind = BindRequest {
        user: "ann".to_owned(),
        rights: "operator".to_owned(),
        ..BindRequest::default()
    };
    admin.bind(bind).await.unwrap();
    let (before, audited) = (rows(&fleet).await, decisions(&fleet).await);
    assert!(
        before.contains("Backups a/ns/orders") && before.contains("Clusters b"),
        "{before:?}"
    );
    assert!(audited > 0);
    drop((spokes, admin));
    // Everything but its certificate is gone.
    let fleet = fleet
        .restart_on(async |dir| {
            for file in std::fs::read_dir(dir).unwrap().flatten() {
                if file.file_name().to_string_lossy().starts_with("fleet.db") {
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        })
        .await;
    assert!(rows(&fleet).await.is_empty());
    let _spokes = report(&fleet).await;
    assert_eq!(rows(&fleet).await, before, "its clusters have told it everything");
    let mut admin = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let bindings = admin.list_bindings(proto::v1::ListBindingsRequest {}).await;
    assert!(
        bindings.unwrap().into_inner().bindings.is_empty(),
        "rights are lost"
    );
    assert!(decisions(&fleet).await < audited, "and so is the audit");
    let (_, found) = manifests(fleet.view_as("viewer/ann").await, "a").await.unwrap();
    assert_eq!(found.len(), 4, "and what they are made again of");
}
