//! A bed: clusters and storage servers on one network, with everything that it keeps in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::address::{BEDS, CLUSTERS, Plan};
use crate::cluster::Cluster;
use crate::process::Daemon;
use crate::servers::Servers;
use crate::tools::Workspace;
use crate::{network, progress};

/// Which beds this machine holds; kept outside any checkout, so that two checkouts do not take the same addresses.
const REGISTER: &str = "/run/restic-fleet-testbed";
/// Port of the hub's Services on every node.
pub const HUB_LINK_PORT: u16 = 30443;
pub const HUB_VIEW_PORT: u16 = 30444;
pub const HUB_ENROL_PORT: u16 = 30445;
/// Password of the demo's repository.
pub const RESTIC_PASSWORD: &str = "demo-password";

/// How a bed is made.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub clusters: Vec<String>,
    /// etcd writes to disk as in production: for benchmarks.
    pub fsync: bool,
    /// Build profile of the product's binaries.
    pub profile: String,
}

impl Options {
    /// Two clusters, quick and forgetful.
    #[must_use]
    pub fn new(name: &str) -> Options {
        let clusters = vec!["a".to_owned(), "b".to_owned()];
        Options {
            name: name.to_owned(),
            clusters,
            fsync: false,
            profile: "dev".to_owned(),
        }
    }
}

/// What is written down of a bed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    root: PathBuf,
    index: u8,
    clusters: Vec<String>,
    profile: String,
}

/// A bed that is up, or was.
#[derive(Clone, Debug)]
pub struct Bed {
    pub workspace: Workspace,
    entry: Entry,
}

impl Bed {
    /// A bed that is up.
    pub fn attach(name: &str) -> anyhow::Result<Bed> {
        let workspace = Workspace::here();
        let entry = register()
            .into_iter()
            .find(|e| e.name == name && e.root == workspace.root);
        let entry =
            entry.ok_or_else(|| anyhow!("there is no test bed {name}; run `testbed up --name {name}`"))?;
        Ok(Bed { workspace, entry })
    }

    /// Every bed of this machine, of whatever checkout.
    #[must_use]
    pub fn all() -> Vec<Bed> {
        register()
            .into_iter()
            .map(|entry| Bed {
                workspace: Workspace {
                    root: entry.root.clone(),
                },
                entry,
            })
            .collect()
    }

    /// Makes a bed, or finds that it is up and well. What an earlier one of that name has left is removed first.
    pub fn up(options: &Options) -> anyhow::Result<Bed> {
        let start = Instant::now();
        let workspace = Workspace::here();
        if options.clusters.len() > usize::from(CLUSTERS) {
            bail!("a bed holds at most {CLUSTERS} clusters");
        }
        let archives = workspace.build_and(|| workspace.build_images(&options.profile))?;
        if let Ok(bed) = Bed::attach(&options.name) {
            if bed.entry.clusters == options.clusters && bed.dead().is_empty() {
                progress(&format!("test bed {} is up already", options.name));
                bed.reload(&options.profile)?;
                return Ok(bed);
            }
            progress(&format!("removing what is left of test bed {}", options.name));
            bed.down();
        }
        let bed = Bed {
            entry: claim(&workspace, options)?,
            workspace,
        };
        let _ = fs::remove_dir_all(bed.dir());
        fs::create_dir_all(bed.dir())?;
        network::remove(bed.plan());
        network::create_bridge(bed.plan())?;
        progress(&format!(
            "starting {} clusters and the storage servers",
            options.clusters.len()
        ));
        bed.start(&archives, options.fsync, start)?;
        bed.write_env()?;
        progress(&format!(
            "test bed {} is up after {:.1?}",
            options.name,
            start.elapsed()
        ));
        Ok(bed)
    }

    /// Starts clusters and servers side by side.
    fn start(&self, archives: &[PathBuf], fsync: bool, start: Instant) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let mut parts: Vec<_> = self
                .clusters()
                .into_iter()
                .map(|cluster| {
                    scope.spawn(move || {
                        cluster.up(archives, fsync)?;
                        progress(&format!(
                            "cluster {} is ready after {:.1?}",
                            cluster.name,
                            start.elapsed()
                        ));
                        Ok::<(), anyhow::Error>(())
                    })
                })
                .collect();
            let servers = self.servers();
            parts.push(scope.spawn(move || servers.up()));
            for part in parts {
                part.join()
                    .map_err(|_| anyhow!("starting a part of the test bed panicked"))??;
            }
            Ok(())
        })
    }

    /// Loads images made from the present binaries into the running clusters.
    pub fn reload(&self, profile: &str) -> anyhow::Result<()> {
        self.load(&self.workspace.build_images(profile)?)
    }

    /// Loads archives of images into the running clusters.
    ///
    /// # Errors
    /// What containerd said.
    pub fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        for cluster in self.clusters() {
            crate::images::load(&cluster.socket(), &cluster.dir.join("loaded"), archives)?;
        }
        Ok(())
    }

    /// Removes everything: processes, mounts, namespaces, links, files.
    pub fn down(&self) {
        std::thread::scope(|scope| {
            for cluster in self.clusters() {
                scope.spawn(move || cluster.down());
            }
            let servers = self.servers();
            scope.spawn(move || servers.down());
        });
        for daemon in Daemon::all(&self.dir()) {
            daemon.stop(std::time::Duration::from_secs(3));
        }
        network::remove(self.plan());
        let _ = fs::remove_dir_all(self.dir());
        let _ = fs::remove_file(entry_file(self.entry.index));
        let link = self.workspace.state().join("env");
        if fs::read_link(&link).is_ok_and(|to| to == self.dir().join("env")) {
            let _ = fs::remove_file(link);
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            index: self.entry.index,
        }
    }

    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.workspace.state().join("beds").join(&self.entry.name)
    }

    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers::new(self.plan(), &self.dir(), &self.workspace)
    }

    #[must_use]
    pub fn clusters(&self) -> Vec<Cluster> {
        let names = self.entry.clusters.iter().zip(0u8..);
        names
            .map(|(name, number)| Cluster {
                name: name.clone(),
                number,
                plan: self.plan(),
                dir: self.dir().join(format!("cluster-{name}")),
                workspace: self.workspace.clone(),
            })
            .collect()
    }

    /// A cluster by its name.
    pub fn cluster(&self, name: &str) -> anyhow::Result<Cluster> {
        let found = self.clusters().into_iter().find(|c| c.name == name);
        found.ok_or_else(|| anyhow!("test bed {} has no cluster {name}", self.name()))
    }

    /// Nodes that can be cut off: clusters and servers.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let clusters = self.entry.clusters.iter().cloned();
        clusters.chain(["s3".to_owned(), "rest".to_owned()]).collect()
    }

    /// Cuts a cluster or a server off, or ends that.
    pub fn set_partition(&self, node: &str, cut: bool) -> anyhow::Result<()> {
        if let Ok(cluster) = self.cluster(node) {
            return if cut { cluster.partition() } else { cluster.heal() };
        }
        if !self.nodes().iter().any(|n| n == node) {
            bail!(
                "test bed {} has no {node}; it has {}",
                self.name(),
                self.nodes().join(", ")
            );
        }
        network::set_link(self.plan(), node, !cut)
    }

    /// What should run and does not, as `part/daemon`.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        let clusters = self.clusters();
        let of_clusters = clusters
            .iter()
            .flat_map(|c| c.dead().into_iter().map(|d| format!("{}/{d}", c.name)));
        of_clusters.chain(self.servers().dead()).collect()
    }

    /// Where the hub is reached: NodePorts of the first cluster.
    #[must_use]
    pub fn hub_address(&self, port: u16) -> String {
        format!("https://{}:{port}", self.plan().node(0))
    }

    /// Certificate, key and authority of the bed's admin: got from the hub when it is installed.
    #[must_use]
    pub fn admin_file(&self) -> PathBuf {
        self.dir().join("admin.pem")
    }

    /// Variables for a shell: `source .testbed/env`.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let (servers, admin) = (self.servers(), self.admin_file());
        let (key, secret) = servers.s3_credentials();
        let [one, two] = servers.s3_urls();
        let admin = admin.to_string_lossy().into_owned();
        let products = self.workspace.product(&self.entry.profile, "fleet");
        let products = products
            .parent()
            .unwrap_or(Path::new(""))
            .to_string_lossy()
            .into_owned();
        let mut variables = vec![
            (
                "PATH".to_owned(),
                format!("{}:{products}:$PATH", self.workspace.bin().display()),
            ),
            ("FLEET_HUB".to_owned(), self.hub_address(HUB_VIEW_PORT)),
            ("FLEET_CA".to_owned(), admin.clone()),
            ("FLEET_CERT".to_owned(), admin.clone()),
            ("FLEET_KEY".to_owned(), admin),
            ("RESTIC_REPOSITORY".to_owned(), format!("s3:{one}/shared")),
            ("RESTIC_PASSWORD".to_owned(), RESTIC_PASSWORD.to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned()),
            ("S3_URL_ONE".to_owned(), one),
            ("S3_URL_TWO".to_owned(), two),
            ("REST_URL".to_owned(), servers.rest_url()),
            ("REST_USER".to_owned(), servers.rest_credentials().0.to_owned()),
            (
                "REST_PASSWORD".to_owned(),
                servers.rest_credentials().1.to_owned(),
            ),
            (
                "REST_CA".to_owned(),
                servers.rest_ca().to_string_lossy().into_owned(),
            ),
        ];
        for cluster in self.clusters() {
            let name = format!("KUBECONFIG_{}", cluster.name.to_uppercase());
            variables.push((name, cluster.kubeconfig().to_string_lossy().into_owned()));
        }
        variables
    }

    fn write_env(&self) -> anyhow::Result<()> {
        let lines = self
            .environment()
            .into_iter()
            .map(|(name, value)| format!("export {name}=\"{value}\"\n"));
        fs::write(self.dir().join("env"), lines.collect::<String>())?;
        if self.name() == "demo" {
            let link = self.workspace.state().join("env");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(self.dir().join("env"), link)?;
        }
        Ok(())
    }

    /// Copies the logs of every daemon and what the clusters say of themselves, for a failed test.
    pub fn collect_logs(&self, to: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(to)?;
        for cluster in self.clusters() {
            let all = cluster.kubectl(&["get", "all,rr,rb,rres,grp,pvc,cm,events", "-A", "-o", "wide"]);
            fs::write(
                to.join(format!("{}-objects.txt", cluster.name)),
                all.unwrap_or_else(|e| e.to_string()),
            )?;
            let yaml = cluster.kubectl(&["get", "rr,rb,rres,grp", "-A", "-o", "yaml"]);
            fs::write(
                to.join(format!("{}-resources.yaml", cluster.name)),
                yaml.unwrap_or_else(|e| e.to_string()),
            )?;
            for program in ["fleet-spoke", "fleet-hub"] {
                let label = format!("app.kubernetes.io/name={program}");
                let of_it = ["-n", "restic-fleet-system", "-l", &label, "--tail=-1", "--prefix"];
                let log = cluster.kubectl(&[&["logs"], &of_it[..]].concat());
                fs::write(
                    to.join(format!("{}-{program}.log", cluster.name)),
                    log.unwrap_or_else(|e| e.to_string()),
                )?;
            }
            for name in ["apiserver", "kubelet", "containerd"] {
                let _ = fs::copy(
                    cluster.dir.join(format!("{name}.log")),
                    to.join(format!("{}-{name}.log", cluster.name)),
                );
            }
        }
        for name in ["s3", "rest", "sshd", "rclone", "s3-proxy", "rest-proxy"] {
            let _ = fs::copy(
                self.servers().dir().join(format!("{name}.log")),
                to.join(format!("{name}.log")),
            );
        }
        Ok(())
    }
}

fn entry_file(index: u8) -> PathBuf {
    Path::new(REGISTER).join(format!("bed-{index}.json"))
}

fn register() -> Vec<Entry> {
    let read = |index| serde_json::from_slice(&fs::read(entry_file(index)).ok()?).ok();
    (0..BEDS).filter_map(read).collect()
}

/// Takes the first free index. Two at the same time cannot take the same: the file is created exclusively.
fn claim(workspace: &Workspace, options: &Options) -> anyhow::Result<Entry> {
    fs::create_dir_all(REGISTER)
        .with_context(|| format!("cannot write {REGISTER}; the test bed needs root"))?;
    for index in 0..BEDS {
        let entry = Entry {
            name: options.name.clone(),
            root: workspace.root.clone(),
            index,
            clusters: options.clusters.clone(),
            profile: options.profile.clone(),
        };
        let path = entry_file(index);
        // A checkout that is gone cannot be brought down by its owner any more.
        if let Some(old) = register()
            .into_iter()
            .find(|e| e.index == index && !e.root.exists())
        {
            Bed {
                workspace: Workspace {
                    root: old.root.clone(),
                },
                entry: old,
            }
            .down();
        }
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                serde_json::to_writer(file, &entry)?;
                return Ok(entry);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    bail!("this machine holds {BEDS} test beds already; remove some with `testbed down --all`")
}
