//! What a hub is started with: flags, or the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Where the store is unless given.
const STORE: &str = "/var/lib/fleet-hub/fleet.db";

/// Sees every physical repository of a fleet once.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleet-hub", version)]
pub struct Config {
    /// Where spokes connect (gRPC, mTLS).
    #[arg(long, env = "FLEET_HUB_LINK_ADDRESS", default_value = "0.0.0.0:8443")]
    pub link_address: SocketAddr,

    /// Where the CLI and the dashboard connect (gRPC, TLS; people come with a certificate or a session).
    #[arg(long, env = "FLEET_HUB_VIEW_ADDRESS", default_value = "0.0.0.0:8444")]
    pub view_address: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served (HTTP, no secrets).
    #[arg(long, env = "FLEET_HUB_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,

    /// Where clusters enrol with a join token (gRPC, TLS without client certificates). Served only where the hub has an
    /// authority of its own.
    #[arg(long, env = "FLEET_HUB_ENROL_ADDRESS", default_value = "0.0.0.0:8445")]
    pub enrol_address: SocketAddr,

    /// Where spokes reach the link address from outside, such as https://hub.example.org:8443. `fleet clusters join` prints
    /// it; without it, it takes the host of the view and port 8443.
    #[arg(long, env = "FLEET_HUB_LINK_URL", default_value = "")]
    pub link_url: String,

    /// Where they reach the enrolment address, such as https://hub.example.org:8445.
    #[arg(long, env = "FLEET_HUB_ENROL_URL", default_value = "")]
    pub enrol_url: String,

    /// Folder of the hub's own authority, which signs the certificates of spokes and of the hub. Made at the first start.
    /// A given authority is put there as `active.pem`: its certificate and its key, PEM. Unless given: `authority` beside the
    /// store, or none at all with --tls-ca.
    #[arg(long, env = "FLEET_HUB_AUTHORITY_DIR")]
    pub authority_dir: Option<PathBuf>,

    /// File with the certificate and the key of an authority, PEM, which the folder is begun with in place of one that is made.
    /// Read only while there is none in the folder.
    #[arg(long, env = "FLEET_HUB_AUTHORITY_FROM")]
    pub authority_from: Option<PathBuf>,

    /// Makes a new authority although clusters have joined by one that is gone: every one of them has to join again.
    #[arg(long, env = "FLEET_HUB_NEW_AUTHORITY")]
    pub new_authority: bool,

    /// Trust domain of the fleet: certificates with spiffe:// URIs of another one are refused.
    #[arg(long, env = "FLEET_HUB_TRUST_DOMAIN", default_value = "restic-fleet", value_parser = trust_domain)]
    pub trust_domain: String,

    /// Life of the certificates that the hub's authority signs. Each is renewed half-way.
    #[arg(long, env = "FLEET_HUB_CERTIFICATE_LIFE", default_value = "24h")]
    pub certificate_life: Span,

    /// Further names and addresses in the certificate that the hub makes for itself, with commas. It always has `hub`, which
    /// spokes and the CLI look for unless they are told otherwise.
    #[arg(long, env = "FLEET_HUB_SERVER_NAME", value_delimiter = ',')]
    pub server_name: Vec<String>,

    /// Certificate chain of the hub, PEM, in place of one that its authority makes. Read again when it changes.
    #[arg(long, env = "FLEET_HUB_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(long, env = "FLEET_HUB_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// The authority of --tls-cert, PEM, where it signs for nobody in the fleet: clients are told to trust it, and the hub
    /// takes no client's certificate of it. Read again when it changes.
    #[arg(long, env = "FLEET_HUB_TLS_CERT_CA", requires = "tls_cert")]
    pub tls_cert_ca: Option<PathBuf>,

    /// A given authority that signs the certificates of spokes and viewers, PEM. Trusted in place of an authority of the
    /// hub's own, or besides it with --authority-dir. Read again when it changes.
    #[arg(long, env = "FLEET_HUB_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// The authority of people's certificates, PEM, in place of the one that signs those of spokes.
    #[arg(long, env = "FLEET_HUB_VIEW_CA")]
    pub view_ca: Option<PathBuf>,

    /// Most connections of spokes, and of people, at the same time.
    #[arg(long, env = "FLEET_HUB_MAX_CONNECTIONS", default_value_t = 20_000)]
    pub max_connections: usize,

    /// SQLite file with the last known state of the fleet.
    #[arg(long, env = "FLEET_HUB_STORE", default_value = STORE)]
    pub store: PathBuf,

    /// How often each spoke is asked to send a heartbeat, such as 20s or 500ms.
    #[arg(long, env = "FLEET_HUB_HEARTBEAT_INTERVAL", default_value = "20s")]
    pub heartbeat_interval: Span,

    /// A spoke that has been silent this long is stale, and so is all that it reported.
    #[arg(long, env = "FLEET_HUB_STALE_AFTER", default_value = "40s")]
    pub stale_after: Span,

    /// A spoke whose stream has ended may come back within this time before it is stale (a rolling update).
    #[arg(long, env = "FLEET_HUB_DISCONNECT_GRACE", default_value = "15s")]
    pub disconnect_grace: Span,

    /// How often watchers get a heartbeat when nothing changes.
    #[arg(long, env = "FLEET_HUB_WATCH_HEARTBEAT", default_value = "10s")]
    pub watch_heartbeat: Span,

    /// How many resources one cluster may report. More than that ends its session.
    #[arg(long, env = "FLEET_HUB_MAX_OBJECTS", default_value_t = 50_000)]
    pub max_objects: usize,

    /// How many bytes of states one cluster may report. More than that ends its session; what is held of it stays.
    #[arg(long, env = "FLEET_HUB_MAX_BYTES", default_value_t = 64 << 20)]
    pub max_bytes: usize,

    /// How long a maintenance lease lives without a renewal, as its holder counts it. Its pod ends itself then.
    #[arg(long, env = "FLEET_HUB_LEASE_TTL", default_value = "5m")]
    pub lease_ttl: Span,

    /// Pause after a holder fell silent, before anybody else may change the repository. At least two lives of a lease.
    #[arg(long, env = "FLEET_HUB_LOCK_DELAY", default_value = "30m")]
    pub lock_delay: Span,

    /// Leases shorter than two minutes, and pauses shorter than two lives: for tests. A pod that is cut off can then be at
    /// work beside the next one.
    #[arg(long, env = "FLEET_HUB_UNSAFE_SHORT_LEASES")]
    pub unsafe_short_leases: bool,

    /// Longest time that new backups are held, and running ones waited for, before maintenance begins.
    #[arg(long, env = "FLEET_HUB_DRAIN_LIMIT", default_value = "15m")]
    pub drain_limit: Span,

    /// A policy that took part in a run this long ago needs no run of its own; "off" gives each its own.
    #[arg(long, env = "FLEET_HUB_COALESCE_WINDOW", default_value = "1m")]
    pub coalesce_window: Window,

    /// How many maintenance operations are at work on one storage host at a time, in the whole fleet; 0 for any number.
    /// Others wait for a place. Removals of left-over locks do not.
    #[arg(long, env = "FLEET_HUB_PER_HOST", default_value_t = 4)]
    pub per_host: usize,

    /// A policy that was due this long ago, and whose cluster has been away this long, is run by another cluster that is
    /// bound to the repository; "off" leaves it to its own.
    #[arg(long, env = "FLEET_HUB_AWAY_AFTER", default_value = "15m")]
    pub away_after: Window,

    /// How long a spoke that was allowed to create a repository and fell silent holds up the creations of others. Four
    /// times --probe-deadline of every spoke: a spoke uses four fifths of it, and begins nothing that could take longer.
    /// Nothing is created for as long after a start.
    #[arg(long, env = "FLEET_HUB_CREATION_HOLD", default_value = "240s")]
    pub creation_hold: Span,

    /// How long a person stays logged in.
    #[arg(long, env = "FLEET_HUB_SESSION_LIFETIME", default_value = "12h")]
    pub session_lifetime: Span,

    /// OpenID Connect issuer by which people log in (device flow), exactly as it calls itself; no such login unless given.
    #[arg(long, env = "FLEET_HUB_OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,

    /// Name of the hub at the issuer.
    #[arg(long, env = "FLEET_HUB_OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,

    /// File with the client's secret, for an issuer that wants one.
    #[arg(long, env = "FLEET_HUB_OIDC_CLIENT_SECRET_FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// Authorities that sign the issuer's certificate, PEM; those of the machine unless given.
    #[arg(long, env = "FLEET_HUB_OIDC_CA")]
    pub oidc_ca: Option<PathBuf>,

    /// Scopes that are asked for.
    #[arg(long, env = "FLEET_HUB_OIDC_SCOPES", default_value = "openid profile email")]
    pub oidc_scopes: String,

    /// Claim of the ID token that names the person. It must be one that people cannot choose for themselves.
    #[arg(long, env = "FLEET_HUB_OIDC_USER_CLAIM", default_value = "email")]
    pub oidc_user_claim: String,

    /// Claim of the ID token with the groups, a list of names.
    #[arg(long, env = "FLEET_HUB_OIDC_GROUPS_CLAIM", default_value = "groups")]
    pub oidc_groups_claim: String,

    /// Stands before the names of people and groups of the issuer, so that they are never those of certificates and login
    /// tokens.
    #[arg(long, env = "FLEET_HUB_OIDC_PREFIX", default_value = "oidc:")]
    pub oidc_prefix: String,

    /// How long the audit, the plans of all runs and people's decisions are kept.
    #[arg(long, env = "FLEET_HUB_AUDIT_RETENTION", default_value = "400d")]
    pub audit_retention: Span,

    /// How many MiB the plans of all runs may take together; beyond that the oldest ones lose their lists of snapshots.
    #[arg(long, env = "FLEET_HUB_AUDIT_PLANS_MIB", default_value_t = 512)]
    pub audit_plans_mib: u64,

    /// How log lines look.
    #[arg(long, env = "FLEET_HUB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Which log lines are written, as tracing's EnvFilter reads it.
    #[arg(long, env = "FLEET_HUB_LOG", default_value = "info")]
    pub log: String,
}

impl Config {
    /// Checks what no flag can say by itself.
    ///
    /// # Errors
    /// Which flag to change.
    pub fn check(&self) -> anyhow::Result<()> {
        let (ttl, delay) = (self.lease_ttl.0, self.lock_delay.0);
        if self.unsafe_short_leases {
            tracing::warn!("leases may be short (--unsafe-short-leases): for tests only");
            return Ok(());
        }
        // A renewal that was answered in its last moment lets a pod work for nearly another life, and a kubelet may take
        // minutes until the pod sees it.
        anyhow::ensure!(
            delay >= ttl * 2,
            "--lock-delay {delay:?} is shorter than two lives of a lease (--lease-ttl {ttl:?}): a pod that was cut off \
             could still be at work; write --lock-delay {}s or more",
            ttl.as_secs() * 2
        );
        anyhow::ensure!(
            ttl >= SHORTEST_TTL,
            "--lease-ttl {ttl:?} is shorter than {SHORTEST_TTL:?}: a busy kubelet takes that long to show a renewal to a \
             pod; raise it"
        );
        Ok(())
    }
}

/// Shortest life of a lease outside of tests.
const SHORTEST_TTL: Duration = Duration::from_secs(120);

fn trust_domain(text: &str) -> Result<String, String> {
    match crate::identity::proper_name(text) {
        true => Ok(text.to_owned()),
        false => Err("write 1 to 253 of a-z, 0-9, '-' and '.'".to_owned()),
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A length of time on the command line: 500ms, 10s, 2m, 1h or 400d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// The span in milliseconds.
    #[must_use]
    pub fn millis(self) -> crate::Millis {
        crate::Millis::try_from(self.0.as_millis()).unwrap_or(crate::Millis::MAX)
    }
}

/// A span, or "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub Option<Duration>);

impl FromStr for Window {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        match text {
            "off" => Ok(Window(None)),
            span => Ok(Window(Some(span.parse::<Span>()?.0))),
        }
    }
}

/// Why a text is not a span.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpanError {
    /// No unit, no number, or zero.
    #[error("write a whole number above 0 and a unit, such as 500ms, 10s, 2m, 1h or 400d")]
    Malformed,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or(SpanError::Malformed)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| SpanError::Malformed)?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            _ => None,
        };
        match millis {
            None | Some(0) => Err(SpanError::Malformed),
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("10s".parse(), Ok(Span(Duration::from_secs(10))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("1h".parse(), Ok(Span(Duration::from_secs(3600))));
        for wrong in [
            "",
            "10",
            "s",
            "0s",
            "-1s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(wrong.parse::<Span>(), Err(SpanError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn defaults_show_a_killed_spoke_as_stale_within_45_seconds() {
        let config = Config::parse_from(["fleet-hub"]);
        // From its last heartbeat on, which a killed spoke sent before it was killed.
        assert!(config.stale_after.0 <= Duration::from_secs(44));
        // One that is late by an interval is not stale yet.
        assert!(config.heartbeat_interval.0 * 2 <= config.stale_after.0);
        assert!(config.disconnect_grace.0 < config.stale_after.0);
    }

    /// A look takes a spoke up to its --probe-deadline of 60 s, and a creation up to two of them.
    #[test]
    fn a_permission_by_default_is_long_enough_for_a_creation_by_default() {
        let hold = Config::parse_from(["fleet-hub"]).creation_hold.0;
        assert!(hold * 4 / 5 > Duration::from_secs(3 * 60));
    }

    #[test]
    fn short_leases_and_delays_are_refused_outside_of_tests() {
        let check = |arguments: &[&str]| Config::parse_from([&["fleet-hub"], arguments].concat()).check();
        assert!(check(&[]).is_ok());
        assert!(check(&["--lease-ttl", "2m", "--lock-delay", "4m"]).is_ok());
        let short = ["--lease-ttl", "20s", "--lock-delay", "20s"];
        assert!(check(&[&short[..], &["--unsafe-short-leases"]].concat()).is_ok());
        let refused = check(&["--lock-delay", "9m"]).unwrap_err().to_string();
        assert!(refused.contains("write --lock-delay 600s"), "{refused}");
        let refused = check(&["--lease-ttl", "1m"]).unwrap_err().to_string();
        assert!(refused.contains("--lease-ttl 60s"), "{refused}");
    }
}
