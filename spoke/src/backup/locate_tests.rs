use serde_json::{Value, json};

use super::*;
use crate::hooks;
use crate::world::AppMount;

fn wanted(source: Value) -> Wanted {
    Wanted::parse(&serde_json::from_value(source).unwrap()).unwrap()
}

fn bound(access: Access) -> ClaimView {
    ClaimView {
        phase: "Bound".into(),
        access,
        ..ClaimView::default()
    }
}

/// A running pod `app=db` on a node, with a volume `data`.
fn pod(node: &str, backing: Backing) -> AppPodView {
    let mount = |container: &str, sub_path: &str, expression| AppMount {
        container: container.into(),
        sub_path: sub_path.into(),
        expression,
    };
    AppPodView {
        labels: [("app".to_owned(), "db".to_owned())].into(),
        node: node.into(),
        running: true,
        containers: vec!["db".into(), "side".into()],
        volumes: vec![AppVolume {
            name: "data".into(),
            backing,
            mounts: vec![mount("db", "pg", false), mount("side", "", true)],
        }],
        ..AppPodView::default()
    }
}

fn claim(name: &str) -> Backing {
    Backing::Claim(name.into())
}

fn world(access: Access, pods: &[(&str, AppPodView)]) -> World {
    let world = World::default();
    for name in ["data", "other"] {
        world.claims.put(Key::new("shop", name), Arc::new(bound(access)));
    }
    for (name, pod) in pods {
        let mut pod = pod.clone();
        pod.meta.version = 1;
        world.app_pods.put(Key::new("shop", name), Arc::new(pod));
    }
    world
}

fn look(world: &World, source: Value) -> Result<Located, (&'static str, String)> {
    look_beside(world, source, None)
}

fn look_beside(
    world: &World,
    source: Value,
    hooks: Option<&Plan>,
) -> Result<Located, (&'static str, String)> {
    let wanted = wanted(source);
    let found = Surroundings::of_source(world, &Key::new("shop", "orders"), &wanted, hooks);
    data(&wanted, hooks, &found).map_err(|unusable| (unusable.reason, unusable.message))
}

fn pvc() -> Value {
    json!({ "pvc": { "claimName": "data" } })
}

fn pod_volume(more: Value) -> Value {
    let mut volume = json!({ "selector": { "matchLabels": { "app": "db" } }, "volumeName": "data" });
    volume
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "podVolumeBackup": volume })
}

#[test]
fn a_claim_of_one_node_is_backed_up_where_it_is_in_use() {
    let nodes =
        |access, pods: &[(&str, AppPodView)]| look(&world(access, pods), pvc()).unwrap().placement.nodes;
    let one = [("db-0", pod("n1", claim("data")))];
    assert_eq!(nodes(Access::Node, &one), ["n1"]);
    assert!(nodes(Access::Many, &one).is_empty(), "it can be mounted anywhere");
    assert!(nodes(Access::Node, &[]).is_empty(), "nobody uses it");
    assert!(nodes(Access::Node, &[("x", pod("n1", claim("other")))]).is_empty());
    // Some drivers do not keep to it.
    let two = [("a", pod("n2", claim("data"))), ("b", pod("n1", claim("data")))];
    assert_eq!(nodes(Access::Node, &two), ["n1", "n2"]);
}

#[test]
fn a_claim_of_one_pod_cannot_be_shared() {
    let (reason, message) =
        look(&world(Access::Pod, &[("db-0", pod("n1", claim("data")))]), pvc()).unwrap_err();
    assert_eq!(reason, "PersistentVolumeClaimInUse");
    assert!(
        message.contains("ReadWriteOncePod") && message.contains("db-0"),
        "{message}"
    );
    assert!(look(&world(Access::Pod, &[]), pvc()).is_ok());
}

#[test]
fn the_claim_behind_the_volume_of_a_pod_is_found() {
    let one = world(Access::Node, &[("db-0", pod("n1", claim("data")))]);
    let located = look(&one, pod_volume(json!({}))).unwrap();
    assert_eq!(
        (located.claim, located.placement.nodes),
        (Some(("data".to_owned(), None)), vec!["n1".to_owned()])
    );
    let folder = look(&one, pod_volume(json!({ "container": "db" }))).unwrap();
    assert_eq!(folder.claim, Some(("data".to_owned(), Some("pg".to_owned()))));
    let replicas = [("a", pod("n1", claim("data"))), ("b", pod("n1", claim("data")))];
    assert!(
        look(&world(Access::Many, &replicas), pod_volume(json!({}))).is_ok(),
        "one claim"
    );
}

#[test]
fn what_cannot_be_had_of_a_pods_volume_is_told() {
    let mut pending = pod("n1", claim("data"));
    pending.running = false;
    let mut going = pod("n1", claim("data"));
    going.meta.deleting = true;
    let well = || ("db-0", pod("n1", claim("data")));
    for (pods, more, reason, words) in [
        (vec![], json!({}), "PodNotFound", "no running pod"),
        (vec![("p", pending)], json!({}), "PodNotFound", "no running pod"),
        (vec![("p", going)], json!({}), "PodNotFound", "no running pod"),
        (
            vec![well()],
            json!({ "selector": { "matchLabels": { "app": "web" } } }),
            "PodNotFound",
            "no running pod",
        ),
        (
            vec![("p", pod("n1", Backing::Other("emptyDir")))],
            json!({}),
            "PodVolumeNotUsable",
            "emptyDir",
        ),
        (
            vec![("p", pod("n1", Backing::Other("hostPath")))],
            json!({}),
            "PodVolumeNotUsable",
            "hostPath",
        ),
        (
            vec![well()],
            json!({ "volumeName": "logs" }),
            "PodVolumeNotUsable",
            "it has: data",
        ),
        (
            vec![well()],
            json!({ "container": "web" }),
            "PodVolumeNotUsable",
            "does not mount",
        ),
        (
            vec![well()],
            json!({ "container": "side" }),
            "PodVolumeNotUsable",
            "subPathExpr",
        ),
        (
            vec![well(), ("db-1", pod("n1", claim("other")))],
            json!({}),
            "PodVolumeAmbiguous",
            "claim other (pod db-1)",
        ),
        (
            vec![("p", pod("n1", claim("gone")))],
            json!({}),
            "PersistentVolumeClaimNotFound",
            "gone",
        ),
    ] {
        let (got, message) = look(&world(Access::Node, &pods), pod_volume(more.clone())).unwrap_err();
        assert!(
            got == reason && message.contains(words),
            "{more}: {got}: {message}"
        );
    }
}

#[test]
fn a_command_needs_a_pod_with_its_container() {
    let exec = |container: Value| {
        let exec = json!({ "podSelector": { "matchLabels": { "app": "db" } }, "container": container, "command": ["dump"] });
        json!({ "stdin": { "filename": "a.sql", "exec": exec } })
    };
    let one = world(Access::Node, &[("db-0", pod("n1", claim("data")))]);
    assert_eq!(look(&one, exec(Value::Null)).unwrap(), Located::default());
    assert!(look(&one, exec(json!("db"))).is_ok());
    let (reason, message) = look(&one, exec(json!("web"))).unwrap_err();
    assert!(
        reason == "PodNotFound" && message.contains("it has: db, side"),
        "{message}"
    );
    assert_eq!(
        look(&world(Access::Node, &[]), exec(Value::Null)).unwrap_err().0,
        "PodNotFound"
    );
}

#[test]
fn a_template_gets_no_credentials_of_a_repository() {
    let custom = |secret: &str| {
        let container = json!({ "name": "dump", "envFrom": [{ "secretRef": { "name": secret } }],
                                "volumeMounts": [{ "name": "data", "mountPath": "/d" }] });
        json!({ "customSource": { "backupPath": "/d", "podTemplate": { "spec": { "containers": [container],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }] } } } })
    };
    let world = world(Access::Node, &[("db-0", pod("n1", claim("data")))]);
    let repository = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": "1" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "storage" } } });
    world.repositories.put(
        Key::new("shop", "nas"),
        Arc::new(serde_json::from_value(repository).unwrap()),
    );
    for secret in [
        "storage",
        "resticrepository-nas",
        "resticbackup-orders-credentials",
    ] {
        let (reason, message) = look(&world, custom(secret)).unwrap_err();
        assert!(
            reason == "TemplateNotAllowed" && message.contains(secret),
            "{message}"
        );
    }
    assert_eq!(
        look(&world, custom("database")).unwrap().placement.nodes,
        ["n1"],
        "where its claim is in use"
    );
    let hook = |secret: &str| {
        let container =
            json!({ "name": "h", "image": "i", "envFrom": [{ "secretRef": { "name": secret } }] });
        let hook = json!({ "job": { "podTemplate": { "spec": { "containers": [container] } } } });
        let hook = serde_json::from_value(hook).unwrap();
        let owner = (hooks::Owner::default(), "resticbackup-orders".to_owned());
        hooks::given(hooks::Subject::Backup, owner, [Some(&hook), None, None]).unwrap()
    };
    let (reason, message) = look_beside(&world, pvc(), hook("storage").as_ref()).unwrap_err();
    assert!(
        reason == "TemplateNotAllowed" && message.contains("spec.hooks"),
        "{message}"
    );
    assert!(look_beside(&world, pvc(), hook("database").as_ref()).is_ok());
}

#[test]
fn a_claim_of_a_template_that_is_not_there_is_waited_for() {
    let container = json!({ "name": "dump", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] });
    let custom = |claim: &str| {
        json!({ "customSource": { "backupPath": "/d", "podTemplate": { "spec": { "containers": [container],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }] } } } })
    };
    let world = world(Access::Node, &[]);
    let (reason, message) = look(&world, custom("missing")).unwrap_err();
    assert!(
        reason == "PersistentVolumeClaimNotFound" && message.contains("\"missing\""),
        "{message}"
    );
    let unbound = ClaimView {
        phase: "Pending".into(),
        ..ClaimView::default()
    };
    world.claims.put(Key::new("shop", "missing"), Arc::new(unbound));
    assert!(look(&world, custom("missing")).is_ok(), "its first run binds it");
}
