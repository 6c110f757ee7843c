//! Where the hub is, and how it is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::config::Config;
use crate::context::Context;
use crate::enrol::{self, Held};
use crate::possession::Possession;

/// Time for a connection, and for the first answer on it.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Where the hub is, and who we are to it.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    pub(super) url: String,
    /// Where this cluster's certificate is kept, if it is not in files.
    pub(super) place: enrol::Place,
    tls: PathBuf,
    pub(super) kubernetes: String,
    pub(super) incarnation: String,
    /// Where Leases are kept.
    pub(super) namespace: String,
    pub(super) possession: Arc<Possession>,
}

impl LinkConfig {
    /// A link to the hub at `url`.
    #[must_use]
    pub fn new(url: &str, config: &Config, kubernetes: &str, possession: Arc<Possession>) -> LinkConfig {
        let incarnation: u128 = rand::rng().random();
        LinkConfig {
            url: url.to_owned(),
            place: enrol::Place {
                namespace: config.lease_namespace.clone(),
                server_name: config.hub_server_name.clone(),
            },
            tls: config.tls_dir.clone(),
            kubernetes: kubernetes.to_owned(),
            incarnation: format!("{incarnation:032x}"),
            namespace: config.lease_namespace.clone(),
            possession,
        }
    }

    /// How the hub is dialled now, and with which certificate if it is one that this spoke keeps itself. Read at each dial: a
    /// rotated certificate needs no restart. Files that a person has installed come first.
    ///
    /// # Errors
    /// When there is no certificate, with what to do.
    pub(super) async fn endpoint(&self, context: &Context) -> anyhow::Result<(Endpoint, Option<Held>)> {
        if self.tls.join("tls.crt").exists() {
            return Ok((self.by_files()?, None));
        }
        let held = enrol::certificate(&self.place, context).await?;
        let (authorities, chain, key) = (&held.authorities, &held.chain, &held.key);
        Ok((self.dial(authorities, chain, key)?, Some(held)))
    }

    fn by_files(&self) -> anyhow::Result<Endpoint> {
        let read = |name: &str| {
            let path = self.tls.join(name);
            std::fs::read(&path).with_context(|| {
                format!("cannot read {}; the link needs ca.crt, tls.crt and tls.key there (Secret fleet-spoke-tls)", path.display())
            })
        };
        self.dial(read("ca.crt")?, read("tls.crt")?, read("tls.key")?)
    }

    fn dial(
        &self,
        authorities: impl AsRef<[u8]>,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> anyhow::Result<Endpoint> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authorities))
            .identity(Identity::from_pem(chain, key))
            .domain_name(&self.place.server_name);
        Ok(Endpoint::from_shared(self.url.clone())?
            .tls_config(tls)?
            .connect_timeout(CONNECT)
            // Longer than the pause between two heartbeats: a hub that answers them is not asked for more.
            .http2_keep_alive_interval(Duration::from_secs(25))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(128 << 10))
    }
}
