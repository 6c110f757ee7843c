//! An operator of one namespace: with Roles alone it backs up there, and nobody hears of others.

use std::time::Duration;

use tests::bed::RESTIC_PASSWORD;
use tests::fleet::{self, SYSTEM, open_volume, volume_path};

use super::{bare, chart, helm_ok};

const OWN: &str = "till";
const OTHER: &str = "foreign";

fn resources(namespace: &str, url: &str, key: &str, secret: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: nas, namespace: {namespace}}}\n\
         stringData: {{RESTIC_PASSWORD: {RESTIC_PASSWORD}, AWS_ACCESS_KEY_ID: {key}, AWS_SECRET_ACCESS_KEY: {secret}}}\n---\n\
         apiVersion: backup.resticbackup.io/v1alpha1\nkind: ResticRepository\nmetadata: {{name: nas, namespace: {namespace}}}\n\
         spec: {{repositoryURL: \"s3:{url}/{namespace}\", credentialsSecretRef: {{name: nas}}}}\n---\n\
         apiVersion: backup.resticbackup.io/v1alpha1\nkind: ResticBackup\nmetadata:\n  name: receipts\n  namespace: {namespace}\n  \
         annotations: {{backup.resticbackup.io/run: first}}\n\
         spec: {{repositoryRef: {{name: nas}}, schedule: \"30 2 * * *\", source: {{pvc: {{claimName: data}}}}}}\n"
    )
}

#[test]
#[ignore = "needs clusters: make charts-test"]
fn an_operator_of_one_namespace_needs_no_right_in_others() {
    let bed = bare();
    let cluster = bed.clusters().into_iter().nth(1).unwrap();
    fleet::install_crds(&cluster).unwrap();
    let (key, secret) = bed.servers().s3_credentials();
    let url = bed.servers().s3_urls()[0].clone();
    for namespace in [OWN, OTHER] {
        let claim = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\n\
             metadata: {{name: data, namespace: {namespace}}}\n\
             spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
        );
        cluster.apply(&claim).unwrap();
        open_volume(&cluster, namespace, "data").unwrap();
        let folder = volume_path(&cluster, namespace, "data").unwrap();
        std::fs::write(format!("{folder}/receipt"), "7.50\n").unwrap();
        cluster.apply(&resources(namespace, &url, key, secret)).unwrap();
    }
    let folder = chart("spoke").to_string_lossy().into_owned();
    let set = format!("watchNamespaces={{{OWN}}},image.tag=dev,crds.install=false");
    helm_ok(
        &cluster,
        &[
            "install",
            "some",
            &folder,
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--set",
            &set,
            "--wait",
            "--timeout",
            "2m",
        ],
    );
    let succeeded = "jsonpath={.status.lastBackup.result}=Succeeded";
    fleet::wait(
        &cluster,
        OWN,
        "resticbackup/receipts",
        succeeded,
        Duration::from_secs(120),
    )
    .unwrap();
    let status = [
        "get",
        "-n",
        OTHER,
        "resticbackup/receipts",
        "-o",
        "jsonpath={.status}",
    ];
    assert_eq!(cluster.kubectl(&status).unwrap(), "", "nobody touched it");
    let can = |verb: &str, namespace: &str| {
        let account = format!("system:serviceaccount:{SYSTEM}:fleet-spoke");
        let answer = cluster.kubectl(&[
            "auth", "can-i", verb, "secrets", "-n", namespace, "--as", &account,
        ]);
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(can("list", OWN) && !can("list", OTHER) && !can("get", OTHER));
    let logs = cluster
        .kubectl(&[
            "logs",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/name=fleet-spoke",
            "--tail=-1",
        ])
        .unwrap();
    assert!(
        !logs.contains("Forbidden") && !logs.contains("forbidden"),
        "{logs}"
    );
    helm_ok(&cluster, &["uninstall", "some", "--namespace", SYSTEM, "--wait"]);
}
