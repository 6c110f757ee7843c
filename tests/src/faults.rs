//! What can go wrong in a bed, done on purpose: nodes that are deleted, hubs that are doubled or put back to an older
//! store, leadership that moves, certificates in the wrong hands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bed::Bed;
use crate::cluster::Cluster;
use crate::fleet::{SYSTEM, volume_path};
use crate::pki::{Authority, Names};
use crate::process::run;

impl Cluster {
    /// Beginning of the addresses of the cluster's pods, such as `10.65.`.
    #[must_use]
    pub fn pod_prefix(&self) -> String {
        let pods = self.plan.pods(self.number);
        pods.trim_end_matches("0.0/16").to_owned()
    }

    /// Deletes the node's object. Pods are then deleted by the control plane, while their containers go on for as long
    /// as no kubelet runs.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn delete_node(&self) -> anyhow::Result<()> {
        self.kubectl(&["delete", "node", &self.node_name()]).map(drop)
    }

    /// Deletes a Job and leaves its pods.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn orphan_job(&self, namespace: &str, job: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "job", "-n", namespace, job, "--cascade=orphan"])
            .map(drop)
    }

    /// Deletes a pod's object at once.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn force_delete_pod(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let force = ["--grace-period=0", "--force", "--wait=false"];
        self.kubectl(&[&["delete", "pod", "-n", namespace, pod], &force[..]].concat())
            .map(drop)
    }

    /// The number of pods of a Deployment of ours, without waiting for them.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn scale(&self, deployment: &str, replicas: u8) -> anyhow::Result<()> {
        let (deployment, replicas) = (
            format!("deployment/{deployment}"),
            format!("--replicas={replicas}"),
        );
        self.kubectl(&["scale", "-n", SYSTEM, &deployment, &replicas])
            .map(drop)
    }

    /// Pods of a program of ours, as objects.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn pods_of(&self, program: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let label = format!("app.kubernetes.io/name={program}");
        let list = self.kubectl(&["get", "pods", "-n", SYSTEM, "-l", &label, "-o", "json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The spoke's pod that leads.
    ///
    /// # Errors
    /// Nobody leads, or what kubectl printed.
    pub fn leader(&self) -> anyhow::Result<String> {
        let holder = "jsonpath={.spec.holderIdentity}";
        let leader = self.kubectl(&["get", "lease", "-n", SYSTEM, "fleet-spoke", "-o", holder])?;
        if leader.is_empty() {
            bail!("no spoke of cluster {} leads", self.name);
        }
        Ok(leader)
    }

    /// The spoke's pods that do not lead.
    ///
    /// # Errors
    /// What kubectl printed.
    pub fn followers(&self) -> anyhow::Result<Vec<String>> {
        let leader = self.leader()?;
        let pods = self.pods_of("fleet-spoke")?.into_iter();
        let mut names: Vec<String> = pods
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        names.retain(|name| *name != leader);
        Ok(names)
    }

    /// Hands leadership to another pod of the spoke, while the one that led lives on.
    ///
    /// # Errors
    /// It did not take it, or what kubectl printed.
    pub fn set_leader(&self, pod: &str) -> anyhow::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
        let patch = format!("{{\"spec\":{{\"holderIdentity\":\"{pod}\",\"renewTime\":\"{now}\"}}}}");
        self.kubectl(&[
            "patch",
            "lease",
            "-n",
            SYSTEM,
            "fleet-spoke",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        // It renews what it has found to be its own.
        let end = Instant::now() + Duration::from_secs(40);
        let renewed = "jsonpath={.spec.holderIdentity} {.spec.renewTime}";
        let written = format!("{pod} {now}");
        loop {
            let lease = self.kubectl(&["get", "lease", "-n", SYSTEM, "fleet-spoke", "-o", renewed])?;
            if lease.starts_with(pod) && lease != written {
                return Ok(());
            }
            if Instant::now() > end {
                bail!(
                    "{pod} did not take the leadership of cluster {}: {lease}",
                    self.name
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Bed {
    /// Which cluster has which addresses: from the beginning of its pods' addresses to its name.
    #[must_use]
    pub fn pod_networks(&self) -> std::collections::BTreeMap<String, String> {
        let clusters = self.clusters().into_iter();
        clusters.map(|c| (c.pod_prefix(), c.name)).collect()
    }

    /// One more certificate in the name of a cluster, for a client that is not its spoke: paths of certificate and key.
    ///
    /// # Errors
    /// The bed's authority cannot be read.
    pub fn issue_spoke(&self, file: &str, cluster: &str) -> anyhow::Result<[PathBuf; 2]> {
        let names = Names {
            common_name: cluster.to_owned(),
            uri: Some(format!("spiffe://restic-fleet/spoke/{cluster}")),
            ..Names::default()
        };
        let dir = self.dir().join("issued");
        fs::create_dir_all(&dir)?;
        // Whoever can read the hub's volume can do this.
        let cluster = self.hub_cluster()?;
        let volume = PathBuf::from(volume_path(&cluster, SYSTEM, "fleet-hub")?);
        let signer = fs::read_to_string(volume.join("authority/active.pem"))?;
        let key = signer.find("-----BEGIN PRIVATE KEY").context("no key")?;
        fs::write(dir.join("ca.crt"), &signer[..key])?;
        fs::write(dir.join("ca.key"), &signer[key..])?;
        Authority::load(&dir, "ca")?.issue(file, names)?;
        Ok(["crt", "key"].map(|ending| dir.join(format!("{file}.{ending}"))))
    }

    fn hub_cluster(&self) -> anyhow::Result<Cluster> {
        self.clusters()
            .into_iter()
            .next()
            .context("a bed without clusters")
    }

    /// Stops the hub and waits until none of its processes is left.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn stop_hub(&self) -> anyhow::Result<()> {
        let cluster = self.hub_cluster()?;
        cluster.scale("fleet-hub", 0)?;
        let end = Instant::now() + Duration::from_secs(60);
        while !cluster.pods_of("fleet-hub")?.is_empty() {
            if Instant::now() > end {
                bail!("the hub did not stop");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Starts one hub and waits until it is ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn start_hub(&self) -> anyhow::Result<()> {
        let cluster = self.hub_cluster()?;
        cluster.scale("fleet-hub", 1)?;
        crate::fleet::rollout(&cluster, "fleet-hub")
    }

    /// Puts a backup of the hub in place on a volume with nothing else on it, and starts the hub. It must be stopped.
    ///
    /// # Errors
    /// What `fleet hub restore` printed.
    pub fn restore_hub(&self, backup: &Path) -> anyhow::Result<()> {
        let cluster = self.hub_cluster()?;
        let volume = PathBuf::from(volume_path(&cluster, SYSTEM, "fleet-hub")?);
        for entry in fs::read_dir(&volume)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        let (backup, login) = (backup.to_string_lossy(), cluster.kubeconfig());
        let arguments = [
            "hub",
            "restore",
            &backup,
            "--kubeconfig",
            &login.to_string_lossy(),
        ];
        crate::fleet::shell_ok(self, "fleet", &arguments).map(drop)
    }

    /// A copy of the folder of the hub's store. The hub must be stopped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn save_store(&self, to: &Path) -> anyhow::Result<()> {
        let cluster = self.hub_cluster()?;
        let store = PathBuf::from(volume_path(&cluster, SYSTEM, "fleet-hub")?);
        let _ = fs::remove_dir_all(to);
        // Database, write-ahead log and its index belong together.
        run("cp", &["-a", &store.to_string_lossy(), &to.to_string_lossy()]).map(drop)
    }

    /// Puts a copy back in place of the hub's store. The hub must be stopped.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_store_back(&self, from: &Path) -> anyhow::Result<()> {
        let cluster = self.hub_cluster()?;
        let store = PathBuf::from(volume_path(&cluster, SYSTEM, "fleet-hub")?);
        // The authority stays: a copy of the store is restored without it.
        let files = |dir: &Path| -> anyhow::Result<Vec<fs::DirEntry>> {
            let all = fs::read_dir(dir)?.flatten();
            Ok(all.filter(|file| file.path().is_file()).collect())
        };
        for file in files(&store)? {
            fs::remove_file(file.path())?;
        }
        for file in files(from)? {
            let to = store.join(file.file_name());
            run(
                "cp",
                &["-a", &file.path().to_string_lossy(), &to.to_string_lossy()],
            )?;
        }
        Ok(())
    }
}
