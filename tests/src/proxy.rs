//! A reverse proxy that makes storage fail: it stands in front of an HTTP storage server (restic's REST server, S3 in
//! path style), does to each request what its rules say, and keeps a log of all of them.
//!
//! ```text
//! use std::time::Duration;
//! use tests::proxy::{Action, Proxy};
//!
//! // The third request is refused, each DELETE takes three seconds, everything else passes.
//! let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), "127.0.0.1:8000".parse().unwrap(), |request| {
//!     match (request.number, request.method.as_str()) {
//!         (3, _) => Action::status(403),
//!         (_, "DELETE") => Action::pass().before(Duration::from_secs(3)),
//!         _ => Action::pass(),
//!     }
//! })
//! .unwrap();
//! let repository = format!("rest:{}/repository/", proxy.url());
//! // … let restic work on it …
//! proxy.set(|_| Action::pass()); // other rules from here on; numbers go on
//! proxy.reset(); // numbers begin at 1 again, the log is empty
//! let deletes = proxy.log().iter().filter(|entry| entry.method == "DELETE").count();
//! ```
//!
//! It has threads of its own, so it can be used in tests that block, and stops when it is dropped. Heads of requests
//! and answers pass byte by byte (signatures cover `Host`), bodies are streamed. Requests are numbered from 1 in the
//! order in which their heads came; what a client sends again counts again.
//!
//! On a bed it runs as a daemon of its own (`testbed proxy`) before each storage server: see `Servers::faulty_rest_url` and
//! [`control::Control`].

pub mod control;
mod http;
mod rule;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use http::{Body, Head, copy};
pub use rule::{Action, Fate, Request, Rule, decide};

/// A moment on the machine's two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the machine started, sleep included.
    pub boot_ms: u64,
    /// Milliseconds since 1970, by the wall clock.
    pub wall_ms: i64,
}

impl Moment {
    #[must_use]
    pub fn now() -> Moment {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
        Moment {
            boot_ms: u64::try_from(boot).unwrap_or_default(),
            wall_ms: jiff::Timestamp::now().as_millisecond(),
        }
    }
}

/// A request in the log. It is there from the moment at which its head came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub number: u64,
    pub method: String,
    /// With the query.
    pub path: String,
    /// Address without the port.
    pub client: String,
    /// What the rules chose.
    pub action: Action,
    /// Its head had come.
    pub came: Moment,
    /// It was sent on to the server; `None`: not yet, or never.
    pub sent: Option<Moment>,
    /// The head of the server's answer had come.
    pub answered: Option<Moment>,
    /// Nothing more happened to it.
    pub ended: Option<Moment>,
    /// The server's code.
    pub server: Option<u16>,
    /// The code that the client was given; `None`: none, or not yet.
    pub status: Option<u16>,
}

type Rules = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

struct Shared {
    upstream: SocketAddr,
    rules: RwLock<Rules>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Raised by each reset: what an earlier request still has to note is dropped.
    generation: u64,
    entries: Vec<Entry>,
}

/// A proxy at work.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Listens at `listen` (port 0: a free one) and passes requests on to `upstream`, plain HTTP on both sides.
    pub fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        rules: impl Fn(&Request) -> Action + Send + Sync + 'static,
    ) -> io::Result<Proxy> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            rules: RwLock::new(Arc::new(rules)),
            log: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let accepting = shared.clone();
        let thread = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, accepting) => {}
                        _ = stopped => {}
                    }
                });
                // Connections end with it, as when a proxy is killed.
                runtime.shutdown_background();
            })?;
        Ok(Proxy {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Other rules for all requests whose head comes from now on.
    pub fn set(&self, rules: impl Fn(&Request) -> Action + Send + Sync + 'static) {
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// How many requests came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.log().entries.len() as u64
    }

    /// All requests, in the order of coming.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.shared.log().entries.clone()
    }

    /// Forgets the log; the next request is number 1.
    pub fn reset(&self) {
        let mut log = self.shared.log();
        log.generation += 1;
        log.entries.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a request, decides about it and writes it down.
    fn take(self: &Arc<Shared>, head: &Head, client: SocketAddr) -> Ticket {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut log = self.log();
        let request = Request {
            number: log.entries.len() as u64 + 1,
            method: head.method.clone(),
            path: head.path.clone(),
            client,
        };
        let action = rules(&request);
        let ticket = Ticket {
            shared: self.clone(),
            generation: log.generation,
            index: log.entries.len(),
            action,
        };
        log.entries.push(Entry {
            number: request.number,
            method: request.method,
            path: request.path,
            client: client.ip().to_string(),
            action,
            came: Moment::now(),
            sent: None,
            answered: None,
            ended: None,
            server: None,
            status: None,
        });
        ticket
    }
}

/// A request's place in the log.
struct Ticket {
    shared: Arc<Shared>,
    generation: u64,
    index: usize,
    action: Action,
}

impl Ticket {
    fn note(&self, change: impl FnOnce(&mut Entry)) {
        let mut log = self.shared.log();
        if log.generation == self.generation {
            log.entries.get_mut(self.index).map(change);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.note(|entry| entry.ended = Some(Moment::now()));
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // Its client sees a connection that ends; there is nobody else to report to.
                    let _ = serve(stream, client, &shared).await;
                });
            }
            // Out of file descriptors: some are given back soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Requests of one connection, one after the other.
async fn serve(stream: TcpStream, client: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(head) = Head::read(&mut reader).await? {
        let ticket = shared.take(&head, client);
        if !exchange(&head, &ticket, &mut reader, &mut writer).await? {
            break;
        }
    }
    writer.shutdown().await
}

/// One request; whether the connection is good for another.
async fn exchange(
    head: &Head,
    ticket: &Ticket,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<bool> {
    if !ticket.action.before.is_zero() && !wait_with_client(ticket.action.before, head, reader).await {
        return Ok(false);
    }
    let body = head.request_body()?;
    let code = match ticket.action.fate {
        Fate::Cut => return Ok(false),
        Fate::Status(code) => code,
        Fate::Empty => 200,
        Fate::Pass | Fate::Lost | Fate::Half => return pass(head, body, ticket, reader, writer).await,
    };
    // A client that waits for leave to send its body gets an answer instead of it.
    let leave = head.has("expect", "100-continue");
    if !leave {
        copy(reader, &mut tokio::io::sink(), body).await?;
    }
    tokio::time::sleep(ticket.action.after).await;
    let close = if leave { "Connection: close\r\n" } else { "" };
    let answer = format!("HTTP/1.1 {code} Injected\r\nContent-Length: 0\r\n{close}\r\n");
    writer.write_all(answer.as_bytes()).await?;
    ticket.note(|entry| entry.status = Some(code));
    Ok(!leave && !head.closes())
}

/// Waits, unless the client closes its connection; whether it still wants its answer.
async fn wait_with_client(time: Duration, head: &Head, reader: &mut BufReader<OwnedReadHalf>) -> bool {
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    if matches!(head.request_body(), Ok(Body::Length(0))) && reader.buffer().is_empty() {
        tokio::select! {
            () = &mut end => return true,
            next = reader.fill_buf() => if next.map_or(true, <[u8]>::is_empty) { return false },
        }
    }
    end.await;
    true
}

/// Sends a request to the server, and the answer back, each on a connection of its own.
async fn pass(
    head: &Head,
    body: Body,
    ticket: &Ticket,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<bool> {
    let server = TcpStream::connect(ticket.shared.upstream).await?;
    server.set_nodelay(true)?;
    let (from, mut to) = server.into_split();
    let mut from = BufReader::new(from);
    ticket.note(|entry| entry.sent = Some(Moment::now()));
    to.write_all(&head.bytes).await?;
    // The answer may come before the request's body has ended, or be what the body waits for.
    let (mut open, mut whole) = (None, false);
    let answer = {
        let sending = async {
            // An error closes the way to the server, which ends the request there.
            let mut to = to;
            copy(reader, &mut to, body).await.map(|()| to)
        };
        let answering = final_head(&mut from, writer);
        tokio::pin!(sending, answering);
        let mut sent = false;
        loop {
            tokio::select! {
                end = &mut sending, if !sent => {
                    sent = true;
                    whole = end.is_ok();
                    // A server takes a way that is closed for a client that has left.
                    open = end.ok();
                }
                answer = &mut answering => break answer?,
            }
        }
    };
    let code = answer.code()?;
    ticket.note(|entry| (entry.answered, entry.server) = (Some(Moment::now()), Some(code)));
    tokio::time::sleep(ticket.action.after).await;
    if ticket.action.fate == Fate::Lost {
        return Ok(false);
    }
    writer.write_all(&answer.bytes).await?;
    ticket.note(|entry| entry.status = Some(code));
    let body = answer.answer_body(&head.method)?;
    if ticket.action.fate == Fate::Half {
        let half = match body {
            Body::Length(all) => all / 2,
            Body::Chunked | Body::Rest => 1,
        };
        copy(&mut from, writer, Body::Length(half)).await?;
        return Ok(false);
    }
    copy(&mut from, writer, body).await?;
    drop(open);
    Ok(whole && body != Body::Rest && !head.closes() && !answer.closes())
}

/// The head of the server's answer; leave to send the body is given on to the client.
async fn final_head(from: &mut BufReader<OwnedReadHalf>, writer: &mut OwnedWriteHalf) -> io::Result<Head> {
    loop {
        let head = Head::read(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.code()? / 100 != 1 {
            return Ok(head);
        }
        writer.write_all(&head.bytes).await?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
