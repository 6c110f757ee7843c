//! An HTTP server that keeps what it is sent, and answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::sync::mpsc;

#[derive(Clone, Default)]
enum Mode {
    #[default]
    Answer,
    Redirect(String),
    Hang,
    Flood,
}

struct Shared {
    requests: mpsc::UnboundedSender<Received>,
    statuses: Mutex<VecDeque<u16>>,
    mode: Mutex<Mode>,
    count: Mutex<usize>,
}

pub struct Sink {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    requests: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
}

/// A request.
#[derive(Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    headers: BTreeMap<String, String>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// "Publish as JSON" of ntfy's documentation: POST to the root of the server, with a topic, and fields of these types.
    pub fn is_ntfy(&self, topic: &str) {
        assert_eq!(
            (self.method.as_str(), self.path.as_str()),
            ("POST", "/"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["topic"], topic);
        assert!(body["message"].is_string() && body["title"].is_string());
        let priority = body["priority"].as_i64().unwrap();
        assert!((1..=5).contains(&priority));
        assert!(body["tags"].as_array().unwrap().iter().all(Value::is_string));
        let known = ["topic", "message", "title", "priority", "tags"];
        let unknown = body
            .as_object()
            .unwrap()
            .keys()
            .find(|key| !known.contains(&key.as_str()));
        assert_eq!(unknown, None);
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    *shared.count.lock().unwrap() += 1;
    let received = Received {
        method: method.to_string(),
        path: uri.to_string(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    shared.requests.send(received).ok();
    let mode = shared.mode.lock().unwrap().clone();
    match mode {
        Mode::Hang => std::future::pending().await,
        Mode::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Mode::Flood => {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 16]));
            Body::from_stream(futures::stream::repeat_with(chunk)).into_response()
        }
        Mode::Answer => {
            let status = shared.statuses.lock().unwrap().pop_front().unwrap_or(200);
            StatusCode::from_u16(status).unwrap().into_response()
        }
    }
}

impl Sink {
    pub async fn start() -> Sink {
        let (sender, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            requests: sender,
            statuses: Mutex::default(),
            mode: Mutex::default(),
            count: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(serve).with_state(shared.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let requests = tokio::sync::Mutex::new(requests);
        Sink {
            address,
            shared,
            requests,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status of the next answers; 200 afterwards.
    pub fn answer(&self, statuses: &[u16]) {
        self.shared.statuses.lock().unwrap().extend(statuses);
    }

    fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub fn redirect(&self, to: &str) {
        self.set(Mode::Redirect(to.to_owned()));
    }

    /// Takes requests, and never answers.
    pub fn hang(&self) {
        self.set(Mode::Hang);
    }

    /// Answers without an end.
    pub fn flood(&self) {
        self.set(Mode::Flood);
    }

    /// Requests so far.
    pub fn received(&self) -> usize {
        *self.shared.count.lock().unwrap()
    }

    /// The next request.
    pub async fn next(&self) -> Received {
        let next = async { self.requests.lock().await.recv().await.unwrap() };
        tokio::time::timeout(Duration::from_secs(20), next)
            .await
            .expect("no request")
    }
}
