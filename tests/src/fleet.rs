//! The product in a bed's clusters: CRDs, hub and spokes from the manifests in deploy/, as anybody would install them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bed::{Bed, HUB_ENROL_PORT, HUB_LINK_PORT};
use crate::cluster::Cluster;
use crate::process::run;
use crate::{objects, progress};

/// Namespace of hub and spokes.
pub const SYSTEM: &str = "restic-fleet-system";

/// Hub in the first cluster, a spoke in each. `settings` are more variables of the spokes, `hub` of the hub.
pub fn install(bed: &Bed, settings: &[(&str, &str)], hub: &[(&str, &str)]) -> anyhow::Result<()> {
    install_with(bed, settings, &[], hub)
}

/// The same; `own` are more variables of single spokes, by the names of their clusters.
pub fn install_with(
    bed: &Bed,
    settings: &[(&str, &str)],
    own: &[(&str, (&str, &str))],
    hub: &[(&str, &str)],
) -> anyhow::Result<()> {
    install_from(bed, &bed.workspace.root.join("deploy"), settings, own, hub)
}

/// The same out of the manifests of any version.
pub fn install_from(
    bed: &Bed,
    deploy: &Path,
    settings: &[(&str, &str)],
    own: &[(&str, (&str, &str))],
    hub: &[(&str, &str)],
) -> anyhow::Result<()> {
    let clusters = bed.clusters();
    let first = clusters.first().context("a bed without clusters")?;
    for cluster in &clusters {
        install_crds_from(cluster, deploy)?;
    }
    progress("installing the hub");
    first.kubectl(&[
        "apply",
        "-f",
        &deploy.join("hub/10-namespace.yaml").to_string_lossy(),
    ])?;
    prepare_hub_volume(first)?;
    let urls = [
        ("FLEET_HUB_LINK_URL", bed.hub_address(HUB_LINK_PORT)),
        ("FLEET_HUB_ENROL_URL", bed.hub_address(HUB_ENROL_PORT)),
        ("FLEET_HUB_SERVER_NAME", bed.plan().node(0)),
    ];
    let urls = urls.iter().map(|(name, value)| (*name, value.as_str()));
    let hub: Vec<(&str, &str)> = hub.iter().copied().chain(urls).collect();
    first.apply(&config_map("fleet-hub-settings", &hub))?;
    first.kubectl(&["apply", "-k", &deploy.join("hub").to_string_lossy()])?;
    rollout(first, "fleet-hub")?;
    log_in(bed, first)?;
    for cluster in &clusters {
        progress(&format!("cluster {} joins", cluster.name));
        let own = own.iter().filter(|(name, _)| *name == cluster.name);
        let settings: Vec<(&str, &str)> = settings.iter().copied().chain(own.map(|(_, s)| *s)).collect();
        install_spoke_from(bed, deploy, cluster, &settings)?;
    }
    clusters
        .iter()
        .try_for_each(|cluster| rollout(cluster, "fleet-spoke"))
}

/// The first certificate of a person, as anybody gets it who may run a command in the hub's pod.
pub fn log_in(bed: &Bed, first: &Cluster) -> anyhow::Result<()> {
    let inside = ["exec", "-n", SYSTEM, "deploy/fleet-hub", "--", "fleet-hub"];
    let pem = first.kubectl(&[&inside[..], &["operator-certificate", "admin", "--valid", "30d"]].concat())?;
    let file = bed.admin_file();
    let _ = fs::remove_file(&file);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    Ok(file.write_all(pem.as_bytes())?)
}

/// The kinds.
pub fn install_crds(cluster: &Cluster) -> anyhow::Result<()> {
    install_crds_from(cluster, &cluster.workspace.root.join("deploy"))
}

fn install_crds_from(cluster: &Cluster, deploy: &Path) -> anyhow::Result<()> {
    let crds = deploy.join("crds");
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        &crds.to_string_lossy(),
    ])?;
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ])
        .map(drop)
}

/// The host-path provisioner makes volumes that only root may write, and does not know fsGroup.
pub fn prepare_hub_volume(cluster: &Cluster) -> anyhow::Result<()> {
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: fleet-hub, namespace: restic-fleet-system}\n\
                 spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    cluster.apply(claim)?;
    open_volume(cluster, SYSTEM, "fleet-hub")
}

/// Waits for a claim's volume and lets everybody write to it.
pub fn open_volume(cluster: &Cluster, namespace: &str, claim: &str) -> anyhow::Result<()> {
    let object = format!("pvc/{claim}");
    cluster.wait(
        Duration::from_secs(30),
        &format!("{namespace}/{object} bound"),
        || objects::get(cluster, namespace, &object).is_ok_and(|claim| claim["status"]["phase"] == "Bound"),
    )?;
    let path = volume_path(cluster, namespace, claim)?;
    run("mkdir", &["-p", &path])?;
    run("chmod", &["0777", &path]).map(drop)
}

/// Folder of a claim on this machine.
pub fn volume_path(cluster: &Cluster, namespace: &str, claim: &str) -> anyhow::Result<String> {
    let claim = objects::get(cluster, namespace, &format!("pvc/{claim}"))?;
    let volume = claim["spec"]["volumeName"].as_str().context("no volume yet")?;
    let volume = objects::get(cluster, "", &format!("pv/{volume}"))?;
    let path = volume["spec"]["hostPath"]["path"].as_str();
    Ok(path.context("no folder of the node")?.to_owned())
}

/// A PersistentVolume of type `local` and class `local` for a claim that may not be there yet: for it the kubelet honours
/// fsGroup, which the volumes of the host-path provisioner do not know. Returns its folder, which is empty.
pub fn volume_for(cluster: &Cluster, namespace: &str, claim: &str) -> anyhow::Result<PathBuf> {
    let folder = cluster.dir.join("local").join(namespace).join(claim);
    fs::create_dir_all(&folder)?;
    let name = format!("{namespace}-{claim}");
    let node = serde_json::json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [format!("node-{}", cluster.name)] });
    let volume = serde_json::json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": { "capacity": { "storage": "100Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                  "persistentVolumeReclaimPolicy": "Retain", "claimRef": { "namespace": namespace, "name": claim },
                  "local": { "path": folder }, "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [node] }] } } } });
    cluster.apply(&volume.to_string())?;
    Ok(folder)
}

/// A claim on such a volume, bound.
pub fn local_volume(cluster: &Cluster, namespace: &str, claim: &str) -> anyhow::Result<PathBuf> {
    let folder = volume_for(cluster, namespace, claim)?;
    let wanted = serde_json::json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": claim, "namespace": namespace },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeName": format!("{namespace}-{claim}"),
                  "resources": { "requests": { "storage": "1Gi" } } } });
    cluster.apply(&wanted.to_string())?;
    wait(
        cluster,
        namespace,
        &format!("pvc/{claim}"),
        "jsonpath={.status.phase}=Bound",
        Duration::from_secs(30),
    )?;
    Ok(folder)
}

/// A spoke that joins the hub, with the two commands of the README.
pub fn install_spoke(bed: &Bed, cluster: &Cluster, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    install_spoke_from(bed, &bed.workspace.root.join("deploy"), cluster, settings)
}

fn install_spoke_from(
    bed: &Bed,
    deploy: &Path,
    cluster: &Cluster,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let deploy = deploy.join("spoke");
    cluster.kubectl(&["apply", "-f", &deploy.join("10-namespace.yaml").to_string_lossy()])?;
    cluster.apply(&config_map("fleet-spoke-settings", settings))?;
    join(bed, cluster)?;
    cluster.kubectl(&["apply", "-f", &deploy.to_string_lossy()])?;
    // Settings are read at the start.
    cluster
        .kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/fleet-spoke"])
        .map(drop)
}

/// Makes a cluster join the hub. A hub that was rolled out is there, but the ports of its node may not lead to it yet.
pub fn join(bed: &Bed, cluster: &Cluster) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    let join = loop {
        match shell_ok(bed, "fleet", &["clusters", "join", &cluster.name, "-o", "yaml"]) {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(300)),
            joined => break joined?,
        }
    };
    cluster.apply(&join).map(drop)
}

/// Takes the hub from a cluster: its spoke works alone from its next start on.
pub fn leave(cluster: &Cluster) -> anyhow::Result<()> {
    let secrets = ["secret/fleet-spoke-join", "secret/fleet-spoke-identity"];
    cluster
        .kubectl(&[&["delete", "-n", SYSTEM, "--ignore-not-found"][..], &secrets].concat())
        .map(drop)
}

fn config_map(name: &str, data: &[(&str, &str)]) -> String {
    let data: serde_json::Map<String, serde_json::Value> =
        data.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    let metadata = serde_json::json!({ "name": name, "namespace": SYSTEM });
    serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data })
        .to_string()
}

/// Waits for a Deployment.
pub fn rollout(cluster: &Cluster, deployment: &str) -> anyhow::Result<()> {
    cluster
        .kubectl(&[
            "rollout",
            "status",
            "-n",
            SYSTEM,
            &format!("deployment/{deployment}"),
            "--timeout=90s",
        ])
        .map(drop)
}

/// Waits for a condition of a resource.
pub fn wait(
    cluster: &Cluster,
    namespace: &str,
    object: &str,
    condition: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let (condition, limit) = (
        format!("--for={condition}"),
        format!("--timeout={}s", limit.as_secs()),
    );
    let waited = cluster.kubectl(&["wait", "-n", namespace, object, &condition, &limit]);
    if let Err(error) = waited {
        let state = cluster
            .kubectl(&["get", "-n", namespace, object, "-o", "jsonpath={.status}"])
            .unwrap_or_default();
        bail!("{error:#}; {object} is: {state}");
    }
    Ok(())
}

/// A program with the bed's variables, as a person with `source .testbed/env` would start it.
#[must_use]
pub fn command(bed: &Bed, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    let exports: String = bed
        .environment()
        .iter()
        .map(|(k, v)| format!("export {k}=\"{v}\"; "))
        .collect();
    command
        .args(["-c", &format!("{exports} exec \"$0\" \"$@\""), program])
        .args(arguments);
    // restic's cache would outlive the bed.
    command.env("RESTIC_CACHE_DIR", bed.dir().join("restic-cache"));
    command
}

/// How long the bed's network may have no way to a pod that is there.
const NO_ROUTE: Duration = Duration::from_secs(20);

/// Runs it to its end. While the network itself has no way to the hub, which no program on it can cause, it is run again,
/// and what the node then knows of its pods is printed.
pub fn run_to_end(bed: &Bed, mut command: Command) -> anyhow::Result<Output> {
    let end = Instant::now() + NO_ROUTE;
    loop {
        let output = command
            .output()
            .with_context(|| format!("cannot run {command:?}"))?;
        if !has_no_route(&output) || Instant::now() > end {
            return Ok(output);
        }
        eprintln!("no route to the hub: {}", ways_to_pods(bed));
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn has_no_route(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && text.contains("cannot be reached: No route to host")
}

/// Pods of the hub's cluster and the node's neighbours.
fn ways_to_pods(bed: &Bed) -> String {
    let pods = bed
        .clusters()
        .first()
        .map(|first| first.kubectl(&["get", "pods", "-n", SYSTEM, "-o", "wide"]));
    let netns = format!("--net=/var/run/netns/{}", bed.plan().netns("a"));
    let neighbours = run("nsenter", &[&netns, "ip", "neigh"]);
    format!("{pods:?}, {neighbours:?}")
}

/// The same with the bed's variables and these.
pub fn shell(bed: &Bed, program: &str, arguments: &[&str], more: &[(&str, &str)]) -> anyhow::Result<Output> {
    let mut command = command(bed, program, arguments);
    command.envs(more.iter().copied());
    run_to_end(bed, command)
}

/// The same; an error carries what it printed, success its output.
pub fn shell_ok(bed: &Bed, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = shell(bed, program, arguments, &[])?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!(
            "{program} {} ended with {}: {}{}",
            arguments.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(text(&output.stdout))
}
