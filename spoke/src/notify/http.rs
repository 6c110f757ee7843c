//! One HTTP request to a receiver: to a checked address, without redirects, within bounds of time and size.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::Addresses;
use super::trust::{self, Trust};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: nobody looks at them.
const ANSWER_MAX: usize = 16 << 10;

/// Why an attempt failed. Names neither URLs nor what a receiver has answered, which may quote what it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    /// Another attempt may do better.
    pub again: bool,
    /// The operator does not call such an address.
    pub refused: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// To be tried again.
    pub fn later(text: impl Into<String>) -> Failure {
        Failure {
            text: text.into(),
            again: true,
            refused: false,
        }
    }

    /// The same attempt would fail again.
    pub fn last(text: impl Into<String>) -> Failure {
        Failure {
            again: false,
            ..Failure::later(text)
        }
    }

    /// The address is not called.
    pub fn refused(text: impl Into<String>) -> Failure {
        Failure {
            refused: true,
            ..Failure::last(text)
        }
    }
}

/// A request to send.
pub struct Outgoing {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: String,
    /// PEM of a certificate authority beside the machine's own.
    pub ca: Option<Vec<u8>>,
}

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    addresses: Addresses,
    trust: Arc<Trust>,
}

impl Client {
    #[must_use]
    pub fn new(addresses: Addresses, trust: Arc<Trust>) -> Client {
        Client { addresses, trust }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// It was not answered with 2xx.
    pub async fn send(&self, outgoing: Outgoing) -> Result<(), Failure> {
        let uri: Uri = outgoing
            .url
            .parse()
            .map_err(|_| Failure::last("the URL cannot be used"))?;
        let (Some(host), Some(scheme)) = (uri.host(), uri.scheme_str()) else {
            return Err(Failure::last("the URL has no host"));
        };
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(Failure::last("the URL must begin with http:// or https://")),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = request(&uri, host, &outgoing)?;
        let stream = self.connect(host, port).await?;
        let status = if secure {
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|_| Failure::last("the URL's host is no name"))?;
            let connector = TlsConnector::from(Arc::new(self.tls(outgoing.ca.as_deref()).await?));
            let stream = timeout(CONNECT, connector.connect(name, stream)).await;
            let stream = stream
                .map_err(|_| Failure::later("no TLS handshake in time"))?
                .map_err(|error| refused(&error))?;
            exchange(stream, request).await?
        } else {
            exchange(stream, request).await?
        };
        judge(status)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        for address in self.addresses.resolve(host, port).await? {
            if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
                return Ok(stream);
            }
        }
        Err(Failure::later("no connection could be made"))
    }

    async fn tls(&self, ca: Option<&[u8]>) -> Result<ClientConfig, Failure> {
        let mut roots = self.trust.machine().await?.roots.clone();
        if let Some(pem) = ca {
            let own = trust::authorities(pem)?;
            Arc::make_mut(&mut roots).add_parsable_certificates(own);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|_| Failure::last("TLS cannot be set up"))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Without the text of the error, which may name the host.
fn refused(error: &std::io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    Failure::later(match inner {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "TLS: the certificate of the receiver is not trusted, is not for this host, or is not valid now"
        }
        _ => "TLS: no connection could be made; is this a port of TLS?",
    })
}

fn request(uri: &Uri, host: &str, outgoing: &Outgoing) -> Result<Request<Full<Bytes>>, Failure> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let mut request = Request::builder()
        .method(outgoing.method.clone())
        .uri(path)
        .header(header::HOST, authority)
        .header(
            header::USER_AGENT,
            concat!("restic-fleet/", env!("CARGO_PKG_VERSION")),
        );
    for (name, value) in &outgoing.headers {
        request = request.header(name, value);
    }
    let body = Full::new(Bytes::from(outgoing.body.clone()));
    request
        .body(body)
        .map_err(|_| Failure::last("the URL cannot be used"))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |_| Failure::later("the connection broke");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    // Read, so that the receiver does not see a broken connection; what is too long is not.
    let _ = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    Ok(status)
}

fn judge(status: StatusCode) -> Result<(), Failure> {
    let code = status.as_u16();
    match code {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::last(format!(
            "HTTP status {code}: redirects are not followed, so write the URL that it leads to"
        ))),
        408 | 425 | 429 | 500..=599 => Err(Failure::later(format!("HTTP status {code}"))),
        _ => Err(Failure::last(format!("HTTP status {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A receiver that answers 204 by TLS, with a certificate for localhost: its port and the PEM of the certificate.
    async fn receiver() -> (u16, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                }
            }
        });
        (port, certificate.pem())
    }

    #[tokio::test]
    async fn a_certificate_is_trusted_by_ca_crt_and_a_failure_does_not_name_the_host() {
        let (port, pem) = receiver().await;
        let client = Client::new(Addresses { loopback: true }, Arc::default());
        let send = |host: &str, ca: Option<&str>| {
            client.send(Outgoing {
                method: Method::POST,
                url: format!("https://{host}:{port}/"),
                headers: Vec::new(),
                body: String::new(),
                ca: ca.map(|pem| pem.as_bytes().to_vec()),
            })
        };
        assert_eq!(send("localhost", Some(&pem)).await, Ok(()));
        for (host, ca) in [("localhost", None), ("127.0.0.1", Some(pem.as_str()))] {
            let failure = send(host, ca).await.unwrap_err();
            assert!(failure.text.contains("certificate of the receiver"), "{failure}");
            assert!(!failure.text.contains("127.0.0.1") && !failure.text.contains("localhost"));
        }
        let none = send("localhost", Some("no PEM")).await.unwrap_err();
        assert!(none.text.contains("holds no certificates"), "{none}");
    }
}
