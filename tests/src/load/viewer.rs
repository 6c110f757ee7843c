//! One viewer on one connection, that asks one thing after the other and takes the time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::watch_event::Body;
use proto::v1::{Collection, Filter, ListRequest, StatusRequest, StatusResponse, WatchEvent, WatchRequest};
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::socket::connect;
use crate::pki::{Authority, Names};

/// Longest time for one kind of question.
const LIMIT: Duration = Duration::from_secs(20);
/// Largest answer.
const ANSWER: usize = 64 << 20;

/// A viewer.
#[derive(Clone)]
pub struct Viewer {
    client: FleetViewClient<Channel>,
}

/// The certificate of an operator, once per folder.
///
/// # Errors
/// When it cannot be written.
pub fn certificate(dir: &Path) -> anyhow::Result<()> {
    let names = Names {
        common_name: "ann".to_owned(),
        uri: Some("spiffe://fleet/operator/ann".to_owned()),
        ..Names::default()
    };
    Authority::load(dir, "ca")?.issue("viewer", names)
}

impl Viewer {
    /// A new connection with its handshake.
    ///
    /// # Errors
    /// When the hub does not take it.
    pub async fn dial(dir: &Path, address: SocketAddr) -> anyhow::Result<Viewer> {
        let read = |name: &str| std::fs::read(dir.join(name));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.crt")?))
            .identity(Identity::from_pem(read("viewer.crt")?, read("viewer.key")?))
            .domain_name("hub");
        let endpoint = Endpoint::from_static("https://hub").tls_config(tls)?;
        let channel = connect(&endpoint, address, &Arc::new(AtomicU64::new(0))).await?;
        let client = FleetViewClient::new(channel).max_decoding_message_size(ANSWER);
        Ok(Viewer { client })
    }

    /// The verdict.
    ///
    /// # Errors
    /// When the hub does not answer.
    pub async fn status(&self) -> anyhow::Result<StatusResponse> {
        let mut client = self.client.clone();
        Ok(client.status(StatusRequest {}).await?.into_inner())
    }

    /// A first page.
    ///
    /// # Errors
    /// When the hub does not answer.
    pub async fn list(&self, collection: Collection, filter: Filter, sort: &str) -> anyhow::Result<u64> {
        let request = ListRequest {
            collection: collection.into(),
            filter: Some(filter),
            sort: sort.to_owned(),
            ..ListRequest::default()
        };
        let mut client = self.client.clone();
        Ok(client.list(request).await?.into_inner().total)
    }

    /// Milliseconds of up to `count` questions, one after the other.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn times<T>(
        &self,
        count: usize,
        ask: impl AsyncFn(&Viewer) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<f64>> {
        let (mut times, begin) = (Vec::new(), Instant::now());
        while times.len() < count && begin.elapsed() < LIMIT {
            let start = Instant::now();
            ask(self).await?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    }

    /// A watch of all rows of a collection, at its bookmark; all rows were decoded.
    ///
    /// # Errors
    /// When the hub ends it.
    pub async fn watch(&self, collection: Collection) -> anyhow::Result<(Streaming<WatchEvent>, usize)> {
        let request = WatchRequest {
            collection: collection.into(),
            filter: None,
            ..WatchRequest::default()
        };
        let mut client = self.client.clone();
        let mut events = client.watch(request).await?.into_inner();
        let mut rows = 0;
        loop {
            let event = events.message().await?.context("the hub ended the watch")?;
            match event.body {
                Some(Body::Bookmark(_)) => return Ok((events, rows)),
                _ => rows += 1,
            }
        }
    }
}
