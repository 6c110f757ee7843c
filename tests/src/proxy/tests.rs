use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(150);

/// A server that answers with what the path asks for; each request is handed to the caller as `METHOD PATH LENGTH`.
fn server() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || serve_one(stream, &tell));
        }
    });
    (address, seen)
}

fn serve_one(stream: TcpStream, tell: &std::sync::mpsc::Sender<String>) {
    let mut out = stream.try_clone().unwrap();
    let mut from = BufReader::new(stream);
    while let Some(head) = read_head(&mut from) {
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if path == "/refuse-early" {
            out.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .unwrap();
            return;
        }
        if head.contains("100-continue") {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let body = read_body(&mut from, &head, "GET");
        tell.send(format!("{method} {path} {}", body.len())).unwrap();
        let answer: &[u8] = match (method, path) {
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            ("DELETE", _) => b"HTTP/1.1 204 No Content\r\n\r\n",
            (_, "/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: 1\r\n\r\n",
            (_, "/rest") => b"HTTP/1.1 200 OK\r\n\r\nhello",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        };
        out.write_all(answer).unwrap();
        if path == "/rest" {
            return;
        }
    }
}

fn read_head(from: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn read_body(from: &mut BufReader<TcpStream>, head: &str, method: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: ")?.parse().ok());
    if head.contains("Transfer-Encoding: chunked") {
        loop {
            let mut line = String::new();
            from.read_line(&mut line).unwrap();
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap(), 16).unwrap();
            from.take(size).read_to_end(&mut body).unwrap();
            if size == 0 {
                while from.read_line(&mut line).unwrap() > 2 {}
                return body;
            }
            from.read_line(&mut line).unwrap();
        }
    }
    if method != "HEAD" {
        from.take(length.unwrap_or(0)).read_to_end(&mut body).unwrap();
    }
    body
}

/// A client with one connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(proxy: &Proxy) -> Client {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, text: &[u8]) {
        self.0.get_mut().write_all(text).unwrap();
    }

    /// Code and body; `None` when the connection ended instead.
    fn answer(&mut self, method: &str) -> Option<(u16, String)> {
        let head = read_head(&mut self.0)?;
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some((
            code,
            String::from_utf8(read_body(&mut self.0, &head, method)).unwrap(),
        ))
    }

    fn ask(&mut self, method: &str, path: &str) -> Option<(u16, String)> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: storage:9000\r\n\r\n").as_bytes());
        self.answer(method)
    }
}

fn proxy(
    rules: impl Fn(&Request) -> Action + Send + Sync + 'static,
) -> (Proxy, std::sync::mpsc::Receiver<String>) {
    let (upstream, seen) = server();
    (
        Proxy::start("127.0.0.1:0".parse().unwrap(), upstream, rules).unwrap(),
        seen,
    )
}

/// The log once every request in it has ended: a client may have its answer a moment before.
fn ended(proxy: &Proxy) -> Vec<Entry> {
    let end = Instant::now() + Duration::from_secs(10);
    while proxy.log().iter().any(|entry| entry.ended.is_none()) {
        assert!(Instant::now() < end, "{:#?}", proxy.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    proxy.log()
}

#[test]
fn a_connection_carries_every_kind_of_body_one_after_the_other() {
    let (proxy, seen) = proxy(|_| Action::pass());
    let mut client = Client::new(&proxy);
    let hello = Some((200, "hello".to_owned()));
    assert_eq!(client.ask("GET", "/a?b=c"), hello);
    assert_eq!(client.ask("HEAD", "/a"), Some((200, String::new())));
    assert_eq!(client.ask("DELETE", "/a"), Some((204, String::new())));
    assert_eq!(client.ask("GET", "/chunked"), Some((200, "hello!".to_owned())));
    client.send(b"PUT /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.answer("PUT"), hello);
    client.send(b"PUT /asks HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer("PUT"), Some((100, String::new())));
    client.send(b"abc");
    assert_eq!(client.answer("PUT"), hello);
    let large = vec![7; 40 << 20];
    client.send(
        format!(
            "PUT /large HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            large.len()
        )
        .as_bytes(),
    );
    client.send(&large);
    assert_eq!(client.answer("PUT"), hello);
    let expected = [
        "GET /a?b=c 0",
        "HEAD /a 0",
        "DELETE /a 0",
        "GET /chunked 0",
        "PUT /chunks 5",
        "PUT /asks 3",
        "PUT /large 41943040",
    ];
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), expected);
    assert_eq!(proxy.count(), 7);
    for entry in ended(&proxy) {
        let ended = entry.ended.unwrap();
        assert_eq!(entry.client, "127.0.0.1");
        assert!(
            entry.came <= entry.sent.unwrap()
                && entry.sent <= entry.answered
                && entry.answered <= Some(ended)
        );
        assert_eq!(entry.status, entry.server);
    }
}

#[test]
fn a_body_that_ends_with_the_connection_ends_the_connection() {
    let (proxy, _seen) = proxy(|_| Action::pass());
    let mut client = Client::new(&proxy);
    client.send(b"GET /rest HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("\r\n\r\nhello"), "{all}");
}

#[test]
fn an_answer_before_the_end_of_the_body_reaches_the_client() {
    let (proxy, _seen) = proxy(|_| Action::pass());
    let mut client = Client::new(&proxy);
    client.send(b"PUT /refuse-early HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    assert_eq!(client.answer("PUT"), Some((413, String::new())));
    assert_eq!(client.answer("PUT"), None, "the rest of the body is of no use");
}

#[test]
fn rules_choose_by_number_method_and_path() {
    let (proxy, seen) =
        proxy(
            |request| match (request.number, request.method.as_str(), request.path.as_str()) {
                (1, ..) => Action::status(403),
                (_, "GET", "/empty") => Action::empty(),
                (_, "DELETE", _) => Action::status(500),
                _ => Action::pass(),
            },
        );
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("GET", "/a"), Some((403, String::new())));
    assert_eq!(client.ask("GET", "/empty"), Some((200, String::new())));
    assert_eq!(client.ask("DELETE", "/a"), Some((500, String::new())));
    client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer("PUT"), Some((200, "hello".to_owned())));
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["PUT /a 3"]);
    assert_eq!(proxy.log()[0].sent, None);
    proxy.reset();
    assert_eq!(
        client.ask("GET", "/a"),
        Some((403, String::new())),
        "number 1 again"
    );
    proxy.set(|_| Action::pass());
    assert_eq!(client.ask("DELETE", "/a"), Some((204, String::new())));
    assert_eq!(proxy.count(), 2);
}

#[test]
fn a_body_that_nobody_wants_does_not_disturb_the_next_request() {
    let (proxy, _seen) = proxy(|request| match request.method.as_str() {
        "PUT" => Action::status(404),
        _ => Action::pass(),
    });
    let mut client = Client::new(&proxy);
    client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer("PUT"), Some((404, String::new())));
    assert_eq!(client.ask("GET", "/a"), Some((200, "hello".to_owned())));
}

#[test]
fn connections_are_cut_before_after_and_in_the_middle() {
    let (proxy, seen) = proxy(|request| {
        Action::of(match request.path.as_str() {
            "/cut" => Fate::Cut,
            "/lost" => Fate::Lost,
            _ => Fate::Half,
        })
    });
    assert_eq!(Client::new(&proxy).ask("GET", "/cut"), None);
    assert_eq!(Client::new(&proxy).ask("DELETE", "/lost"), None);
    let mut client = Client::new(&proxy);
    client.send(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert!(
        all.contains("Content-Length: 5") && all.ends_with("\r\n\r\nhe"),
        "{all}"
    );
    assert_eq!(
        seen.try_iter().collect::<Vec<_>>(),
        ["DELETE /lost 0", "GET /half 0"]
    );
}

#[test]
fn delays_come_before_the_server_or_after_it() {
    let (proxy, _seen) = proxy(|request| match request.method.as_str() {
        "DELETE" => Action::pass().before(SHORT),
        _ => Action::pass().after(SHORT),
    });
    let start = Instant::now();
    let mut client = Client::new(&proxy);
    assert!(client.ask("DELETE", "/a").is_some());
    assert!(start.elapsed() >= SHORT);
    assert!(client.ask("GET", "/a").is_some());
    assert!(start.elapsed() >= SHORT * 2);
    let log = ended(&proxy);
    let gap = |from: Moment, to: Moment| to.boot_ms - from.boot_ms;
    assert!(gap(log[0].came, log[0].sent.unwrap()) >= 149, "{log:#?}");
    assert!(
        gap(log[1].answered.unwrap(), log[1].ended.unwrap()) >= 149,
        "{log:#?}"
    );
}

#[test]
fn a_client_that_leaves_during_the_delay_has_taken_its_request_back() {
    let (proxy, seen) = proxy(|_| Action::pass().before(Duration::from_secs(60)));
    let mut client = Client::new(&proxy);
    client.send(b"DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n");
    while proxy.count() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    let start = Instant::now();
    while proxy.log()[0].ended.is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "it did not notice");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((proxy.log()[0].sent, seen.try_recv().ok()), (None, None));
}

#[test]
fn rules_as_data_are_read_from_json_and_the_first_that_matches_decides() {
    let rules = vec![
        Rule::each("DELETE", Action::status(403)).containing("/locks/"),
        Rule::each("DELETE", Action::pass().before(Duration::from_secs(3))).without("/index/"),
    ];
    let rules: Vec<Rule> = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
    let request = |method: &str, path: &str| Request {
        number: 1,
        method: method.to_owned(),
        path: path.to_owned(),
        client: "10.0.0.1:1".parse().unwrap(),
    };
    assert_eq!(
        decide(&rules, &request("DELETE", "/r/locks/1")),
        Action::status(403)
    );
    assert_eq!(
        decide(&rules, &request("DELETE", "/r/data/1")).before,
        Duration::from_secs(3)
    );
    assert_eq!(decide(&rules, &request("DELETE", "/r/index/1")), Action::pass());
    assert_eq!(decide(&rules, &request("GET", "/r/locks/1")), Action::pass());
}
