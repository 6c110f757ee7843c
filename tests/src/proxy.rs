//! A reverse proxy that makes storage fail: it stands in front of an HTTP storage server (restic's REST server, S3 in
//! path style), does to each request what its rules say, and keeps a log of all of them.
//!
//! ```no_run
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

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Longest head of a request or an answer, in bytes.
const HEAD: usize = 64 << 10;

/// What is known of a request when its fate is decided.
#[derive(Clone, Debug)]
pub struct Request {
    /// From 1, in the order of coming.
    pub number: u64,
    pub method: String,
    /// As in the request line, with the query.
    pub path: String,
    pub client: SocketAddr,
}

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The server answers it.
    Pass,
    /// The proxy answers with this code and no body; the server does not see it.
    Status(u16),
    /// The proxy answers 200 with no body; the server does not see it.
    Empty,
    /// The connection is cut; the server does not see the request.
    Cut,
    /// The server does what is asked, then the connection is cut without an answer.
    Lost,
    /// The server answers, and the connection is cut in the middle of the answer's body.
    Half,
}

/// What is done to a request, and how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub fate: Fate,
    /// Waited before `fate` happens. A client that closes its connection meanwhile has taken the request back.
    #[serde(default)]
    pub before: Duration,
    /// Waited between the server's answer and its delivery.
    #[serde(default)]
    pub after: Duration,
}

impl Action {
    #[must_use]
    pub const fn of(fate: Fate) -> Action {
        Action {
            fate,
            before: Duration::ZERO,
            after: Duration::ZERO,
        }
    }

    #[must_use]
    pub const fn pass() -> Action {
        Action::of(Fate::Pass)
    }

    #[must_use]
    pub const fn status(code: u16) -> Action {
        Action::of(Fate::Status(code))
    }

    #[must_use]
    pub const fn empty() -> Action {
        Action::of(Fate::Empty)
    }

    #[must_use]
    pub const fn cut() -> Action {
        Action::of(Fate::Cut)
    }

    #[must_use]
    pub const fn before(self, before: Duration) -> Action {
        Action { before, ..self }
    }

    #[must_use]
    pub const fn after(self, after: Duration) -> Action {
        Action { after, ..self }
    }
}

/// A rule as data, for a proxy in another process. Every part that is set must match.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    #[serde(default)]
    pub method: Option<String>,
    /// The path contains this.
    #[serde(default)]
    pub containing: Option<String>,
    /// The path does not contain this.
    #[serde(default)]
    pub without: Option<String>,
    /// The client's address starts with this.
    #[serde(default)]
    pub client: Option<String>,
    pub action: Action,
}

impl Rule {
    /// A rule for each request of a method.
    #[must_use]
    pub fn each(method: &str, action: Action) -> Rule {
        Rule {
            method: Some(method.to_owned()),
            containing: None,
            without: None,
            client: None,
            action,
        }
    }

    /// Only where the path contains this.
    #[must_use]
    pub fn containing(self, part: &str) -> Rule {
        Rule {
            containing: Some(part.to_owned()),
            ..self
        }
    }

    /// Only where the path does not contain this.
    #[must_use]
    pub fn without(self, part: &str) -> Rule {
        Rule {
            without: Some(part.to_owned()),
            ..self
        }
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.as_ref().is_none_or(|m| *m == request.method)
            && self.containing.as_ref().is_none_or(|p| request.path.contains(p))
            && self.without.as_ref().is_none_or(|p| !request.path.contains(p))
            && self
                .client
                .as_ref()
                .is_none_or(|c| request.client.ip().to_string().starts_with(c))
    }
}

/// The first rule that matches decides; what none matches passes.
#[must_use]
pub fn decide(rules: &[Rule], request: &Request) -> Action {
    let rule = rules.iter().find(|rule| rule.matches(request));
    rule.map_or(Action::pass(), |rule| rule.action)
}

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

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Rest,
}

/// First line and headers of a request or an answer.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    method: String,
    path: String,
    /// Of a request its version, of an answer its code.
    first: [String; 3],
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Head {
    /// The next head; `None` when the connection has ended before it.
    async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            let left = (HEAD - start) as u64;
            let read = (&mut *reader).take(left).read_until(b'\n', &mut bytes).await?;
            if read == 0 && bytes.is_empty() {
                return Ok(None);
            }
            if bytes.last() != Some(&b'\n') {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if matches!(&bytes[start..], b"\r\n" | b"\n") {
                // An empty line before a request is allowed.
                if start == 0 {
                    bytes.clear();
                    continue;
                }
                return Head::parse(bytes).map(Some);
            }
        }
    }

    fn parse(bytes: Vec<u8>) -> io::Result<Head> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let first = [(); 3].map(|()| first.next().unwrap_or_default());
        if first[1].is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Head {
            bytes,
            method: first[0].clone(),
            path: first[1].clone(),
            first,
            headers,
        })
    }

    /// Whether a header's list holds a word.
    fn has(&self, name: &str, word: &str) -> bool {
        let values = self.headers.iter().filter(|(n, _)| n == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    }

    fn closes(&self) -> bool {
        let old = self.first[0] == "HTTP/1.0" || self.first[2] == "HTTP/1.0";
        self.has("connection", "close") || old
    }

    fn code(&self) -> io::Result<u16> {
        self.first[1]
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn body(&self, unknown: Body) -> io::Result<Body> {
        if self.has("transfer-encoding", "chunked") {
            return Ok(Body::Chunked);
        }
        match self.headers.iter().find(|(name, _)| name == "content-length") {
            Some((_, length)) => length
                .parse()
                .map(Body::Length)
                .map_err(|_| io::ErrorKind::InvalidData.into()),
            None => Ok(unknown),
        }
    }

    fn request_body(&self) -> io::Result<Body> {
        self.body(Body::Length(0))
    }

    /// Body of the answer to a request of this method.
    fn answer_body(&self, method: &str) -> io::Result<Body> {
        if method == "HEAD" || matches!(self.code()?, 204 | 304) {
            return Ok(Body::Length(0));
        }
        self.body(Body::Rest)
    }
}

/// Copies one body, as it is on the wire.
async fn copy(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
    body: Body,
) -> io::Result<()> {
    match body {
        Body::Length(length) => copy_length(from, to, length).await,
        Body::Rest => tokio::io::copy_buf(from, to).await.map(drop),
        Body::Chunked => {
            loop {
                let line = copy_line(from, to).await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    break;
                }
                // With the line's end after it.
                copy_length(from, to, size + 2).await?;
            }
            // Trailers.
            while !copy_line(from, to).await?.trim().is_empty() {}
            Ok(())
        }
    }
}

async fn copy_length(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
) -> io::Result<()> {
    let copied = tokio::io::copy_buf(&mut from.take(length), to).await?;
    if copied < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn copy_line(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(HEAD as u64).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
