use serde_json::json;

use super::*;

fn with(spec: Value) -> Result<Guest, BadTemplate> {
    let mut full = json!({ "containers": [{ "name": "dump", "image": "db", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
                           "volumes": [{ "name": "data", "emptyDir": {} }] });
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    Guest::parse(
        "spec.source.customSource.podTemplate",
        &json!({ "metadata": { "creationTimestamp": null }, "spec": full }),
    )
}

#[test]
fn what_could_read_the_credentials_is_refused_by_its_field() {
    assert!(with(json!({})).is_ok());
    let container = |more: Value| {
        let mut container = json!({ "name": "dump", "image": "db" });
        container
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "containers": [container] })
    };
    for (spec, part) in [
        (
            json!({ "shareProcessNamespace": true }),
            "spec.shareProcessNamespace",
        ),
        (json!({ "hostPID": true }), "spec.hostPID"),
        (json!({ "hostIPC": true }), "spec.hostIPC"),
        (json!({ "hostNetwork": true }), "spec.hostNetwork"),
        (
            json!({ "ephemeralContainers": [{ "name": "debug" }] }),
            "spec.ephemeralContainers",
        ),
        (
            json!({ "automountServiceAccountToken": true }),
            "spec.automountServiceAccountToken",
        ),
        (json!({ "restartPolicy": "OnFailure" }), "spec.restartPolicy"),
        (json!({ "nodeName": "n" }), "spec.nodeName"),
        (json!({ "containers": [] }), "spec.containers"),
        (
            json!({ "volumes": [{ "name": "data", "hostPath": { "path": "/" } }] }),
            "spec.volumes[0]",
        ),
        (
            json!({ "volumes": [{ "name": "credentials", "emptyDir": {} }] }),
            "spec.volumes[0]",
        ),
        (container(json!({ "name": "restic" })), "spec.containers[0].name"),
        (
            container(json!({ "volumeMounts": [{ "name": "credentials", "mountPath": "/c" }] })),
            "spec.containers[0].volumeMounts",
        ),
        (
            container(json!({ "volumeDevices": [{ "name": "cache", "devicePath": "/c" }] })),
            "spec.containers[0].volumeMounts",
        ),
        (
            container(json!({ "securityContext": { "privileged": true } })),
            "spec.containers[0].securityContext.privileged",
        ),
        (
            container(json!({ "securityContext": { "procMount": "Unmasked" } })),
            "spec.containers[0].securityContext.procMount",
        ),
        (
            container(json!({ "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } } })),
            "spec.containers[0].securityContext.capabilities",
        ),
        (
            json!({ "initContainers": [{ "name": "i", "securityContext": { "privileged": true } }] }),
            "spec.initContainers[0].securityContext.privileged",
        ),
        (container(json!({ "comand": ["x"] })), "spec.containers[0].comand"),
    ] {
        let error = with(spec.clone()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("spec.source.customSource.podTemplate.{part}")),
            "{spec}: {error}"
        );
    }
    let number = container(json!({ "resources": { "limits": { "cpu": 1 } } }));
    assert!(with(number).is_ok(), "a quantity as a number");
    assert!(matches!(
        with(json!({ "containers": 3 })),
        Err(BadTemplate::Type(..))
    ));
}

#[test]
fn every_way_to_a_secret_is_seen() {
    let guest = with(json!({
        "containers": [{ "name": "dump", "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "by-env", "key": "k" } } }],
                         "envFrom": [{ "secretRef": { "name": "all-env" } }] }],
        "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "init-env" } }] }],
        "volumes": [{ "name": "s", "secret": { "secretName": "volume" } },
                    { "name": "p", "projected": { "sources": [{ "secret": { "name": "projected" } }] } },
                    { "name": "c", "csi": { "driver": "d", "nodePublishSecretRef": { "name": "driver" } } }],
    }))
    .unwrap();
    let expected = ["all-env", "by-env", "driver", "init-env", "projected", "volume"];
    assert_eq!(guest.secrets().into_iter().collect::<Vec<_>>(), expected);
    for copy in [
        crds::names::repository_location("nas"),
        crds::names::backup_credentials("orders"),
        crds::names::restore_credentials("orders"),
        crds::names::retention_credentials("nightly"),
    ] {
        assert!(crds::names::is_of_credentials(&copy), "{copy}");
    }
    assert!(!crds::names::is_of_credentials("orders"));
}
