//! How the hub is reached: by flags and files, or by a login.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::arguments::HubArguments;
use crate::contexts::{self, Context};
use crate::failure::Failure;

pub(crate) type Authorized = InterceptedService<Channel, Session>;

/// Adds the session to each request.
#[derive(Clone)]
pub(crate) struct Session(Option<MetadataValue<Ascii>>);

impl Interceptor for Session {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// How the hub is reached, and how one shows who one is.
pub struct Connection {
    pub hub: String,
    pub server_name: String,
    /// PEM.
    pub ca: Vec<u8>,
    pub proof: Proof,
    /// The login that it is of.
    pub context: Option<Context>,
}

/// What shows who one is.
pub enum Proof {
    /// For a login.
    None,
    /// Certificate and key, PEM.
    Certificate(Vec<u8>, Vec<u8>),
    Session(String),
}

impl Connection {
    /// By flags and variables if they name a hub, else by a login.
    ///
    /// # Errors
    /// When neither names one, or a file cannot be read.
    pub fn chosen(arguments: &HubArguments) -> Result<Connection, Failure> {
        if let Some(hub) = &arguments.hub {
            let file = |path: &Option<PathBuf>, variable, flag| {
                let path = path.as_deref().ok_or(Failure::NotConfigured(variable, flag))?;
                read(path)
            };
            return Ok(Connection {
                hub: hub.clone(),
                server_name: arguments.server_name(),
                ca: file(&arguments.ca, "FLEET_CA", "ca")?,
                proof: Proof::Certificate(
                    file(&arguments.cert, "FLEET_CERT", "cert")?,
                    file(&arguments.key, "FLEET_KEY", "key")?,
                ),
                context: None,
            });
        }
        let all = contexts::load(&contexts::path()?)?;
        match (all.find(arguments.context.as_deref()), &arguments.context) {
            (Some(context), _) => Ok(Connection::of(context)),
            (None, Some(name)) => {
                let text = format!("there is no context {name:?}; fleet contexts list");
                Err(Failure::Usage(text))
            }
            (None, None) => Err(Failure::NotConfigured("FLEET_HUB", "hub")),
        }
    }

    /// By a login.
    #[must_use]
    pub fn of(context: &Context) -> Connection {
        Connection {
            hub: context.hub.clone(),
            server_name: context.server_name.clone(),
            ca: context.ca.clone().into_bytes(),
            proof: Proof::Session(context.session.clone()),
            context: Some(context.clone()),
        }
    }
}

/// Connects within the time given.
///
/// # Errors
/// When the hub is not reached, or not trusted.
pub(crate) async fn connect(connection: Connection, limit: Duration) -> Result<(Channel, Session), Failure> {
    let hub = connection.hub;
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(connection.ca))
        .domain_name(connection.server_name);
    let mut session = Session(None);
    match connection.proof {
        Proof::None => {}
        Proof::Certificate(cert, key) => tls = tls.identity(Identity::from_pem(cert, key)),
        Proof::Session(token) => {
            let bearer = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
            let bad =
                |_| Failure::Usage("the session in the file of logins is damaged: log in again".to_owned());
            let mut bearer = bearer.map_err(bad)?;
            bearer.set_sensitive(true);
            session = Session(Some(bearer));
        }
    }
    let endpoint = Endpoint::from_shared(hub.clone())
        .ok()
        .filter(|_| hub.starts_with("https://"))
        .and_then(|endpoint| endpoint.tls_config(tls).ok())
        .ok_or_else(|| Failure::Address(hub.clone()))?;
    let endpoint = endpoint
        .connect_timeout(limit)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let channel = timeout(limit, endpoint.connect())
        .await
        .map_err(|_| Failure::Timeout(hub.clone()))?;
    let channel = channel.map_err(|error| Failure::connecting(&error, &hub))?;
    Ok((channel, session))
}

/// A file.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::File {
        path: path.display().to_string(),
        error,
    })
}
