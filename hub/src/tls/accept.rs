//! Connections of one listener: each gets a time for its handshake, and there are only so many.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};
use tracing::{debug, warn};

use super::served::Served;
use crate::rate::network;

/// A handshake that is not over by then is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a failed accept: usually there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A client says what it wants this soon after its handshake, or is not served.
const FIRST: Duration = Duration::from_secs(10);
/// A connection on which nothing has come or gone for so long is given up. Heartbeats and pings come more often.
const QUIET: Duration = Duration::from_secs(90);
/// One source may have this part of the handshakes: who stalls all of its own keeps nobody else out.
const SHARE: usize = 4;

/// A connection whose certificate is not trusted any more is open for this much longer.
const PARTING: Duration = Duration::from_secs(2);

/// How many may be connected, and how many in a handshake, at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    pub handshakes: usize,
    /// Whether a connection ends when its client's certificate expires.
    pub until_expiry: bool,
}

/// A connection whose handshake is over. It counts until it is dropped.
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    /// Why it ends, whatever is open on it; `None` for a client without a certificate.
    end: Option<BoxFuture<'static, &'static str>>,
    quiet: Quiet,
    _permit: OwnedSemaphorePermit,
}

/// How long nothing has come or gone.
struct Quiet {
    timer: Pin<Box<Sleep>>,
    last: Instant,
    /// Something has come.
    heard: bool,
}

impl Quiet {
    fn new() -> Quiet {
        Quiet {
            timer: Box::pin(sleep(FIRST)),
            last: Instant::now(),
            heard: false,
        }
    }

    /// The timer is not set anew each time: it looks when it is over.
    fn moved(&mut self) {
        self.last = Instant::now();
    }

    /// Whether it was quiet for too long. Otherwise the task is woken when it might be.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let due = self.last + QUIET;
            if !self.heard || due <= Instant::now() {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }
}

/// How many handshakes of each source are under way.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

impl Sources {
    /// A place for one more, if the source has not got `most`.
    fn take(self: &Arc<Sources>, source: IpAddr, most: usize) -> Option<Source> {
        let source = network(source);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Source {
            sources: self.clone(),
            source,
        })
    }
}

/// A handshake that counts until it is dropped.
struct Source {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// Accepts connections until `stop`, with the configuration of the moment.
#[must_use]
pub fn accept(
    listener: TcpListener,
    config: watch::Receiver<Arc<Served>>,
    bounds: Bounds,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Accepted>> {
    let (out, accepted) = mpsc::channel(16);
    tokio::spawn(async move {
        tokio::select! {
            () = run(listener, config, bounds, out) => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(accepted)
}

async fn run(
    listener: TcpListener,
    config: watch::Receiver<Arc<Served>>,
    bounds: Bounds,
    out: mpsc::Sender<io::Result<Accepted>>,
) {
    let connections = Arc::new(Semaphore::new(bounds.connections));
    let handshakes = Arc::new(Semaphore::new(bounds.handshakes));
    let sources = Arc::<Sources>::default();
    loop {
        // Who comes while all are busy waits in the kernel's queue.
        let Ok(handshake) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(source) = sources.take(peer.ip(), bounds.handshakes.div_ceil(SHARE)) else {
            debug!(%peer, "too many handshakes from there; one was closed");
            continue;
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            warn!(%peer, limit = bounds.connections, "too many connections; one was closed");
            continue;
        };
        let (config, out) = (config.clone(), out.clone());
        tokio::spawn(async move {
            let served = config.borrow().clone();
            let acceptor = TlsAcceptor::from(served.config());
            let _handshake = (handshake, source);
            // A short answer is sent at once: held back until the last one is acknowledged, each would take 40 ms.
            let _ = stream.set_nodelay(true);
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let end = end(&stream, bounds, served, config);
                    let accepted = Accepted {
                        stream,
                        end,
                        quiet: Quiet::new(),
                        _permit: permit,
                    };
                    // An error means that the server has ended.
                    let _ = out.send(Ok(accepted)).await;
                }
                Ok(Err(error)) => debug!(%peer, %error, "a handshake failed"),
                Err(_) => debug!(%peer, "a handshake took too long"),
            }
        });
    }
}

/// When a connection ends because of its client's certificate.
fn end(
    stream: &TlsStream<TcpStream>,
    bounds: Bounds,
    served: Arc<Served>,
    config: watch::Receiver<Arc<Served>>,
) -> Option<BoxFuture<'static, &'static str>> {
    let chain = stream.get_ref().1.peer_certificates()?;
    let chain: Vec<CertificateDer<'static>> = chain.iter().map(|der| der.clone().into_owned()).collect();
    let expired = bounds.until_expiry.then(|| expiry(&chain)).flatten();
    Some(Box::pin(async move {
        let expired = async {
            match expired {
                Some(left) => sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => "the client's certificate has expired",
            () = distrusted(&chain, served, config) => "the authority of the client's certificate is not trusted any more",
        }
    }))
}

/// How long a client's certificate is valid.
fn expiry(chain: &[CertificateDer<'static>]) -> Option<Duration> {
    let expires = proto::certificate::read(chain.first()?).ok()?.expires;
    let left = u64::try_from(expires.saturating_sub(crate::now())).unwrap_or_default();
    Some(Duration::from_millis(left))
}

/// Returns when the listener takes a chain no more that it has taken: its authority was retired.
async fn distrusted(
    chain: &[CertificateDer<'static>],
    mut served: Arc<Served>,
    mut config: watch::Receiver<Arc<Served>>,
) {
    loop {
        let present = config.borrow_and_update().clone();
        if !present.trusts_as(&served) && !present.takes(chain) {
            // The person who has retired it may be waiting for the answer on this very connection.
            return sleep(PARTING).await;
        }
        served = present;
        if config.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

impl Accepted {
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.quiet.moved();
        }
        written
    }
}

impl Connected for Accepted {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && let Poll::Ready(text) = end.as_mut().poll(cx)
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.quiet.heard = true;
            self.quiet.moved();
        } else if read.is_pending() && self.quiet.poll(cx) {
            let text = "nothing has come or gone for too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn end_of(quiet: &mut Quiet) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| {
            if quiet.poll(cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_after_its_handshake_is_not_kept() {
        let mut quiet = Quiet::new();
        // What the server sends to it is no word of the client.
        quiet.moved();
        assert_eq!(end_of(&mut quiet).await.as_secs(), FIRST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_nothing_has_moved_for_long_and_not_before() {
        let mut quiet = Quiet::new();
        quiet.heard = true;
        assert!(
            timeout(Duration::from_secs(80), end_of(&mut quiet))
                .await
                .is_err()
        );
        quiet.moved();
        assert_eq!(end_of(&mut quiet).await.as_secs(), QUIET.as_secs());
    }

    #[test]
    fn a_source_that_stalls_its_handshakes_leaves_places_to_others() {
        let sources = Arc::<Sources>::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let held: Vec<Source> = (0..2).filter_map(|_| sources.take(one, 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(sources.take(one, 2).is_none());
        assert!(sources.take(other, 2).is_some());
        drop(held);
        assert!(sources.take(one, 2).is_some());
        assert!(sources.0.lock().unwrap().is_empty(), "nobody is remembered");
    }
}
