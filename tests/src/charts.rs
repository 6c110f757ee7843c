//! Helm in a bed's clusters, and the product installed by its charts, of any version.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cluster::Cluster;
use crate::fleet::{SYSTEM, join, log_in, prepare_hub_volume, rollout};
use crate::images;
use crate::progress;

/// What Helm prints, with a cluster's kubeconfig. Its own files are those of the bed.
///
/// # Errors
/// With what it said, when it failed; and it was not built.
pub fn helm_ok(bed: &Bed, cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let program = bed.workspace.program("helm");
    let output = Command::new(&program)
        .args(["--kubeconfig", &cluster.kubeconfig().to_string_lossy()])
        .args(arguments)
        .env("HOME", bed.dir().join("helm"))
        .output()
        .with_context(|| format!("{}: `testbed build --charts` builds it", program.display()))?;
    let [printed, said] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if !output.status.success() {
        bail!("helm {}: {printed}{said}", arguments.join(" "));
    }
    Ok(printed)
}

/// An image of ours as the charts of this version call it.
#[must_use]
pub fn released(image: &str) -> String {
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    format!("{name}:v{}", env!("CARGO_PKG_VERSION"))
}

/// Hub in the first cluster, a spoke in each, by the charts in `deploy/charts` and with their images of that version.
///
/// # Errors
/// When the charts refuse, or what they install does not come up.
pub fn install_from(
    bed: &Bed,
    deploy: &Path,
    settings: &[(&str, &str)],
    hub: &[(&str, &str)],
) -> anyhow::Result<()> {
    let clusters = bed.clusters();
    let first = clusters.first().context("a bed without clusters")?;
    for cluster in &clusters {
        for image in [images::HUB, images::SPOKE] {
            images::tag(&cluster.socket(), image, &released(image))?;
        }
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } });
        cluster.apply(&namespace.to_string())?;
    }
    progress("installing the hub by its chart");
    prepare_hub_volume(first)?;
    let values = json!({ "address": bed.plan().node(0), "store": { "existingClaim": "fleet-hub" } });
    release(bed, first, deploy, "hub", &values, hub)?;
    rollout(first, "fleet-hub")?;
    log_in(bed, first)?;
    for cluster in &clusters {
        progress(&format!("cluster {} joins by its chart", cluster.name));
        join(bed, cluster)?;
        release(bed, cluster, deploy, "spoke", &json!({}), settings)?;
    }
    clusters
        .iter()
        .try_for_each(|cluster| rollout(cluster, "fleet-spoke"))
}

/// Installs a chart as the release that the pages name. The charts refuse settings that are for tests alone, and say to patch
/// the Deployment.
fn release(
    bed: &Bed,
    cluster: &Cluster,
    deploy: &Path,
    chart: &str,
    values: &Value,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let file = bed.dir().join(format!("values-{chart}-{}.json", cluster.name));
    fs::write(&file, values.to_string())?;
    let (folder, file) = (deploy.join("charts").join(chart), file.to_string_lossy());
    let (name, folder) = (format!("fleet-{chart}"), folder.to_string_lossy());
    let install = [
        "install",
        &name,
        &folder,
        "--namespace",
        SYSTEM,
        "--values",
        &file,
    ];
    helm_ok(bed, cluster, &install)?;
    let deployment = format!("deployment/{name}");
    let settings: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let set = ["set", "env", "-n", SYSTEM, &deployment].into_iter();
    let set: Vec<&str> = set.chain(settings.iter().map(String::as_str)).collect();
    cluster.kubectl(&set).map(drop)
}
