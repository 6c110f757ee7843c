//! Flags and environment, read once. Nothing else in the spoke reads the environment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::allow::Allowed;
use crate::images::AllowedImages;
use crate::site::{Limits, Site, limit};

/// Flags of the operator.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Name of this cluster in the fleet; tags the snapshots that it makes. Without one, or with an empty one, the name
    /// is made of the uid of namespace kube-system.
    #[arg(long, env = "FLEET_CLUSTER")]
    pub cluster: Option<String>,

    /// Hub to connect to, such as https://hub.example.org:8443. Without one the spoke works alone.
    #[arg(long, env = "FLEET_HUB", value_parser = hub_address)]
    pub hub: Option<HubAddress>,

    /// There is no hub any more: maintain also repositories that were shared through one. Only if no other cluster does.
    #[arg(long, env = "FLEET_STANDALONE", default_value_t = false, action = clap::ArgAction::Set)]
    pub standalone: bool,

    /// Name in the hub's certificate.
    #[arg(long, env = "FLEET_HUB_SERVER_NAME", default_value = "hub")]
    pub hub_server_name: String,

    /// Folder with ca.crt, tls.crt and tls.key of the link. Read anew at each connection.
    #[arg(long, env = "FLEET_TLS_DIR", default_value = "/etc/fleet/tls")]
    pub tls_dir: PathBuf,

    /// Only one of several replicas writes.
    #[arg(long, env = "FLEET_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the leader lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "restic-fleet-system")]
    pub lease_namespace: String,

    /// Namespaces whose resources this operator works on beside its own, with commas; all unless given. It needs its rights
    /// only there then, and in the cluster to read namespaces.
    #[arg(long, env = "FLEET_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub namespaces: Vec<Namespace>,

    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    pub identity: String,

    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "FLEET_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,

    /// Folder for restic's cache and temporary files.
    #[arg(long, env = "FLEET_CACHE_DIR", default_value = "/var/cache/fleet-spoke")]
    pub cache_dir: PathBuf,

    /// The restic binary.
    #[arg(long, env = "FLEET_RESTIC", default_value = "restic")]
    pub restic: PathBuf,

    /// restic processes that run in this process's container at the same time.
    #[arg(long, env = "FLEET_RESTIC_PROCESSES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub restic_processes: u32,

    /// Most backups of this cluster that run at the same time; 0 is no limit. Others wait, first come, first served.
    /// Where there is a limit, no backup begins while the operator is away.
    #[arg(long, env = "FLEET_MAX_BACKUPS", default_value_t = 0)]
    pub max_backups: u32,

    /// The same for backups that have to run on one certain node, because the volume is in use there.
    #[arg(long, env = "FLEET_MAX_BACKUPS_PER_NODE", default_value_t = 0)]
    pub max_backups_per_node: u32,

    /// How often statistics of a repository are read, unless it says so itself. Such as 1h or 15m.
    #[arg(long, env = "FLEET_REFRESH_INTERVAL", default_value = "1h", value_parser = duration)]
    pub refresh_interval: Duration,

    /// Longest time that a question to a repository may take before it counts as unreachable.
    #[arg(long, env = "FLEET_PROBE_DEADLINE", default_value = "60s", value_parser = duration)]
    pub probe_deadline: Duration,

    /// Shortest time between two attempts at a repository that cannot be reached.
    #[arg(long, env = "FLEET_RETRY_INTERVAL", default_value = "30s", value_parser = duration)]
    pub retry_interval: Duration,

    /// How often the locks of a repository are looked at while there are any.
    #[arg(long, env = "FLEET_LOCK_INTERVAL", default_value = "5m", value_parser = duration)]
    pub lock_interval: Duration,

    /// A lock of restic that has not changed for so long is left over and removed. Not below 35m: a live restic may take
    /// 30 minutes to find out that it has lost its lock.
    #[arg(long, env = "FLEET_UNLOCK_AFTER", default_value = "35m", value_parser = unlock_after)]
    pub unlock_after: Duration,

    /// For tests alone: takes the place of --unlock-after, without its lower bound, for locks of pods whose end the kubelet
    /// has reported. The pod that removes a lock then has the host name that stands in it, since restic spares a lock of
    /// less than 30 minutes unless it is of its own host.
    #[arg(long, env = "FLEET_TEST_UNLOCK_AFTER", hide = true, value_parser = duration)]
    pub test_unlock_after: Option<Duration>,

    /// Image of this binary, for maintenance pods.
    #[arg(long, env = "FLEET_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,

    /// Images that resources may name, with commas: exact ones, or beginnings that end in *. restic's own unless given.
    /// Their containers get the repositories' keys. The operator's own image is always allowed.
    #[arg(long, env = "FLEET_ALLOWED_IMAGES", default_value = "", value_parser = AllowedImages::parse)]
    pub allowed_images: AllowedImages,

    /// Life of a maintenance lease without a hub; with one the hub decides.
    #[arg(long, env = "FLEET_LEASE_TTL", default_value = "5m", value_parser = duration)]
    pub lease_ttl: Duration,

    /// How long a retention run waits for a lock of restic that a process outside of the fleet holds, or a dead one has
    /// left, such as 30m. It holds the maintenance lock meanwhile.
    #[arg(long, env = "FLEET_MAINTENANCE_RETRY_LOCK", default_value = RETRY_LOCK)]
    pub maintenance_retry_lock: String,

    /// Pause after a holder whose end was not seen, without a hub; with one the hub decides.
    #[arg(long, env = "FLEET_LOCK_DELAY", default_value = "30m", value_parser = duration)]
    pub lock_delay: Duration,

    /// Leases shorter than two minutes, and pauses shorter than two lives: for tests. A pod that is cut off can then be at
    /// work beside the next one.
    #[arg(long, env = "FLEET_UNSAFE_SHORT_LEASES")]
    pub unsafe_short_leases: bool,

    /// Also calls receivers of notifications on this container's own loopback, such as a relay in a sidecar.
    #[arg(long, env = "FLEET_NOTIFY_LOOPBACK", default_value_t = false, action = clap::ArgAction::Set)]
    pub notify_loopback: bool,

    /// What people may make this cluster do through its hub, with commas: read (list snapshots and files), run (backups,
    /// retention and checks that are configured), suspend (and resume), restore, unlock, retain (retention for clusters that are
    /// away, also where no policy of this cluster is for the repository); none for nothing.
    #[arg(long, env = "FLEET_ALLOW", default_value = "read,run,suspend", value_parser = Allowed::parse)]
    pub allow: Allowed,

    /// How log lines look.
    #[arg(long, env = "FLEET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Which log lines are written, as tracing's EnvFilter reads it.
    #[arg(long, env = "FLEET_LOG", default_value = DEFAULT_LOG)]
    pub log: String,
}

/// What is logged unless told otherwise, or by a filter that cannot be read.
pub const DEFAULT_LOG: &str = "info,ractor=warn,kube_client=off";

/// How long restic waits for a lock in a pod, unless a resource or a flag says otherwise.
pub const RETRY_LOCK: &str = "30m";

/// Where the image is published.
const DEFAULT_IMAGE: &str = concat!("ghcr.io/restic-fleet/spoke:v", env!("CARGO_PKG_VERSION"));

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// An address of a hub, or none: an empty value counts as none, so that a ConfigMap may leave it empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress(pub Option<String>);

fn hub_address(text: &str) -> Result<HubAddress, String> {
    match text.trim() {
        "" => Ok(HubAddress(None)),
        url if url.starts_with("https://") => Ok(HubAddress(Some(url.to_owned()))),
        other => Err(format!(
            "{other:?} must begin with https://, the link is never in plain text"
        )),
    }
}

/// A namespace, or none: an empty value counts as none, so that a ConfigMap may leave it empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(pub Option<String>);

fn namespace(text: &str) -> Result<Namespace, String> {
    let is_label = |text: &str| {
        let ends = text.chars().next().into_iter().chain(text.chars().last());
        text.len() <= 63
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && ends.into_iter().all(|c| c != '-')
    };
    match text.trim() {
        "" => Ok(Namespace(None)),
        name if is_label(name) => Ok(Namespace(Some(name.to_owned()))),
        other => Err(format!("{other:?} is not the name of a namespace")),
    }
}

/// A duration as Go writes it, such as 1h30m.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    crds::schedule::parse_duration(text)
        .and_then(|d| Duration::try_from(d).ok())
        .filter(|d| !d.is_zero())
        .ok_or_else(|| format!("{text:?} is not a duration; write 30s, 15m or 1h30m"))
}

/// Shortest time after which a lock of restic counts as left over.
const UNLOCK_AFTER_MIN: Duration = Duration::from_secs(35 * 60);

fn unlock_after(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|after| {
        (after >= UNLOCK_AFTER_MIN)
            .then_some(after)
            .ok_or_else(|| format!("{text} is less than 35m: a live restic may hold a lock that long"))
    })
}

fn default_identity() -> String {
    format!("fleet-spoke-{}", std::process::id())
}

/// Shortest life of a lease outside of tests.
const SHORTEST_TTL: Duration = Duration::from_secs(120);

impl Config {
    /// How long the lock of a pod that is proven to be dead must not have changed.
    #[must_use]
    pub fn unlock_after_end(&self) -> Duration {
        self.test_unlock_after.unwrap_or(self.unlock_after)
    }

    /// Checks what no flag can tell alone.
    ///
    /// # Errors
    /// Which flag to change.
    pub fn check(&self) -> anyhow::Result<()> {
        let (ttl, delay) = (self.lease_ttl, self.lock_delay);
        anyhow::ensure!(
            self.unsafe_short_leases || (ttl >= SHORTEST_TTL && delay >= ttl * 2),
            "--lease-ttl {ttl:?} and --lock-delay {delay:?}: a pod that was cut off could still be at work beside the next \
             one; a lease lives for 2m or more, and the delay is two lives or more"
        );
        Ok(())
    }

    /// The namespaces that are watched, or none for all. The operator's own is one of them: the Secret of a join is there.
    #[must_use]
    pub fn watched(&self) -> Vec<String> {
        let named = self.namespaces.iter().filter_map(|named| named.0.clone());
        let mut all: BTreeSet<String> = named.collect();
        if !all.is_empty() {
            all.insert(self.lease_namespace.clone());
        }
        all.into_iter().collect()
    }

    /// URL of the hub, if there is one.
    #[must_use]
    pub fn hub_url(&self) -> Option<&str> {
        self.hub.as_ref()?.0.as_deref()
    }

    /// What this installation is called, and what it allows. `cluster_uid` is the uid of namespace kube-system.
    #[must_use]
    pub fn site(&self, cluster_uid: &str) -> Site {
        let named = self
            .cluster
            .as_deref()
            .map(str::trim)
            .filter(|name| !name.is_empty());
        Site {
            cluster: named.map_or_else(|| default_cluster(cluster_uid), str::to_owned),
            cluster_uid: cluster_uid.to_owned(),
            images: self.allowed_images.clone().and(&self.image),
            image: self.image.clone(),
            limits: Limits {
                cluster: limit(self.max_backups),
                node: limit(self.max_backups_per_node),
            },
            allowed: self.allow,
            namespaces: self.watched(),
        }
    }
}

/// A name that no other cluster has. A constant would make one group of the snapshots of all clusters that share a
/// repository, and retention would count them together.
fn default_cluster(uid: &str) -> String {
    let digits: String = uid.chars().filter(char::is_ascii_hexdigit).take(10).collect();
    format!("cluster-{digits}")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn no_hub_and_an_empty_hub_are_the_same() {
        assert_eq!(
            Arguments::parse_from(["fleet-spoke", "--hub", ""])
                .config
                .hub_url(),
            None
        );
        assert_eq!(
            Arguments::parse_from(["fleet-spoke", "--hub", "https://h:1"])
                .config
                .hub_url(),
            Some("https://h:1")
        );
        assert!(Arguments::try_parse_from(["fleet-spoke", "--hub", "http://h:1"]).is_err());
    }

    #[test]
    fn a_cluster_without_a_name_is_called_by_its_uid() {
        let named = |arguments: &[&str]| {
            let all = ["fleet-spoke"].iter().chain(arguments);
            Arguments::parse_from(all)
                .config
                .site("3F2504e0-4f89-11d3-9a0c-0305e82c3301")
        };
        for none in [&[][..], &["--cluster", ""], &["--cluster", " "]] {
            assert_eq!(named(none).cluster, "cluster-3F2504e04f");
        }
        let site = named(&["--cluster", "berlin", "--image", "mirror/spoke:1"]);
        assert_eq!(site.cluster, "berlin");
        assert_eq!(site.cluster_uid, "3F2504e0-4f89-11d3-9a0c-0305e82c3301");
        assert!(site.images.allows("mirror/spoke:1") && !site.images.allows("evil/x:1"));
    }

    /// Applied again they must take no cluster out of its fleet.
    #[test]
    fn the_shipped_manifests_say_neither_name_nor_hub() {
        let shipped = include_str!("../../deploy/spoke/30-deployment.yaml");
        assert!(!shipped.contains("kind: ConfigMap"));
        for key in ["cluster", "hub"] {
            let reference = format!("configMapKeyRef: {{ name: fleet-spoke, key: {key}, optional: true }}");
            assert!(shipped.contains(&reference), "{key}");
        }
        let example = include_str!("../../deploy/spoke-config.example.yaml");
        assert!(example.contains("kind: ConfigMap") && example.contains("name: fleet-spoke"));
    }

    #[test]
    fn an_operator_of_some_namespaces_watches_its_own_too() {
        let watched = |namespaces: &str| {
            let arguments = ["fleet-spoke", "--namespaces", namespaces];
            Arguments::try_parse_from(arguments).map(|parsed| parsed.config.watched())
        };
        assert!(watched("").unwrap().is_empty(), "all");
        assert_eq!(
            watched("shop,till,shop").unwrap(),
            ["restic-fleet-system", "shop", "till"]
        );
        assert!(watched("shop,*").is_err() && watched("-a").is_err());
    }

    #[test]
    fn short_leases_and_delays_are_refused_outside_of_tests() {
        let check = |arguments: &[&str]| {
            let arguments = [&["fleet-spoke"], arguments].concat();
            Arguments::parse_from(arguments).config.check()
        };
        assert!(check(&[]).is_ok());
        assert!(check(&["--lease-ttl", "1m"]).is_err());
        assert!(check(&["--lock-delay", "9m"]).is_err());
        assert!(check(&["--lease-ttl", "20s", "--unsafe-short-leases"]).is_ok());
    }

    #[test]
    fn a_live_lock_is_never_called_left_over() {
        let parse = |after: &str| Arguments::try_parse_from(["fleet-spoke", "--unlock-after", after]);
        assert!(parse("34m59s").is_err() && parse("1h").is_ok());
    }

    #[test]
    fn durations_are_go_durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }
}
