//! What a browser gets from the view's port, over real TLS: pages and their headers, logins that end in a cookie, gRPC-Web
//! under it, and what pages of other sites do not get. Over HTTP/2 and HTTP/1.1.

use std::sync::Arc;

use crate::harness::Fleet;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::{
    CreateLoginRequest, InviteRequest, LogoutRequest, RevokeCertificateRequest, RevokeRequest,
    StatusResponse, WhoAmIRequest, WhoAmIResponse,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tonic::Code;

/// A browser as far as TLS and HTTP go.
struct Browser {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and message of a gRPC-Web answer: those of the trailers, which are its last frame, or of the headers.
    fn grpc(&self) -> (i32, Bytes) {
        if let Some(status) = self.headers.get("grpc-status") {
            return (status.to_str().unwrap().parse().unwrap(), Bytes::new());
        }
        let (mut rest, mut message, mut status) = (self.body.clone(), Bytes::new(), -1);
        while rest.len() >= 5 {
            let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            let frame = rest.slice(5..5 + length);
            if rest[0] & 0x80 == 0 {
                message = frame;
            } else {
                let text = String::from_utf8_lossy(&frame).into_owned();
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix("grpc-status:"))
                    .unwrap();
                status = line.trim().parse().unwrap();
            }
            rest = rest.slice(5 + length..);
        }
        (status, message)
    }
}

impl Browser {
    /// With these protocols on offer, best first.
    fn new(fleet: &Fleet, protocols: &[&str]) -> Browser {
        let mut roots = rustls::RootCertStore::empty();
        let ca = std::fs::read(fleet.dir.path().join("ca.crt")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Browser {
            port: fleet.running.view.port(),
            tls: Arc::new(tls),
        }
    }

    /// One request on a connection of its own; the protocol that was agreed on, and the answer.
    async fn send(&self, request: Request<Full<Bytes>>) -> (String, Answer) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector
            .connect(ServerName::try_from("hub").unwrap(), stream)
            .await
            .unwrap();
        let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
        let agreed = String::from_utf8(agreed).unwrap();
        let io = TokioIo::new(stream);
        let answer = if agreed == "h2" {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        (agreed, whole(answer).await)
    }

    fn address(&self, path: &str) -> String {
        format!("https://hub:{}{path}", self.port)
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let host = format!("hub:{}", self.port);
        Request::builder()
            .method(method)
            .uri(self.address(path))
            .header(HOST, host)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Full::default()).unwrap())
            .await
            .1
    }

    /// As the dashboard's own pages send it, with `more` in place of what they have.
    async fn post(&self, path: &str, body: Vec<u8>, more: &[(&str, &str)]) -> Answer {
        let kind = if path.starts_with("/fleet.v1.") {
            "application/grpc-web+proto"
        } else {
            "application/json"
        };
        let mut request = self.request("POST", path).body(Full::from(body)).unwrap();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        headers.insert("x-fleet-dashboard", "1".parse().unwrap());
        headers.insert(ORIGIN, format!("https://hub:{}", self.port).parse().unwrap());
        for (name, value) in more {
            let name: axum::http::HeaderName = name.parse().unwrap();
            if value.is_empty() {
                headers.remove(name);
            } else {
                headers.insert(name, value.parse().unwrap());
            }
        }
        self.send(request).await.1
    }

    async fn call(&self, path: &str, cookie: &str, more: &[(&str, &str)]) -> Answer {
        let mut headers = vec![("cookie", cookie)];
        headers.extend(more);
        self.post(&format!("/fleet.v1.{path}"), vec![0; 5], &headers)
            .await
    }

    /// The cookie of a login, as it goes with later requests.
    async fn log_in(&self, token: &str) -> String {
        let body = serde_json::json!({ "token": token }).to_string().into_bytes();
        let answer = self.post("/login", body, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let cookie = answer.header(SET_COOKIE.as_str()).to_owned();
        for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("fleet-session-"),
            "a script could read it"
        );
        cookie.split(';').next().unwrap().to_owned()
    }
}

async fn whole(answer: Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = answer.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: Body::new(body).collect().await.unwrap().to_bytes(),
    }
}

/// A token with which a person logs in at the dashboard.
pub async fn own_login(fleet: &Fleet, who: &str) -> String {
    let mut admin = FleetAdminClient::new(fleet.view_as(who).await);
    admin
        .create_login(CreateLoginRequest {})
        .await
        .unwrap()
        .into_inner()
        .token
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_with_both_protocols_and_load_nothing_from_elsewhere() {
    let fleet = Fleet::new().await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], "h2"),
        (&["http/1.1"][..], "http/1.1"),
        (&[][..], ""),
    ] {
        let browser = Browser::new(&fleet, offered);
        for path in ["/", "/backups/a/shop/orders", "/about.json"] {
            let request = browser.request("GET", path).body(Full::default()).unwrap();
            let (protocol, answer) = browser.send(request).await;
            assert_eq!(protocol, agreed);
            assert!(
                [200, 503].contains(&answer.status.as_u16()),
                "{path}: {}",
                answer.status
            );
            let policy = answer.header("content-security-policy");
            assert!(
                policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
                "{policy}"
            );
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("access-control-allow-origin").is_empty());
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
    let browser = Browser::new(&fleet, &["h2"]);
    assert_eq!(browser.get("/assets/none.js").await.status, StatusCode::NOT_FOUND);
    let put = browser.request("PUT", "/").body(Full::default()).unwrap();
    assert_eq!(browser.send(put).await.1.status, StatusCode::METHOD_NOT_ALLOWED);
    let head = browser.request("HEAD", "/").body(Full::default()).unwrap();
    assert!(browser.send(head).await.1.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_in_a_cookie_that_counts_beside_grpc_web_of_an_own_page_alone() {
    let fleet = Fleet::new().await;
    for offered in [["h2"], ["http/1.1"]] {
        let browser = Browser::new(&fleet, &offered);
        let token = own_login(&fleet, "viewer/ann").await;
        let cookie = browser.log_in(&token).await;
        let (status, message) = browser.call("FleetAdmin/WhoAmI", &cookie, &[]).await.grpc();
        assert_eq!(status, 0);
        let who = WhoAmIResponse::decode(message).unwrap();
        assert_eq!((who.name.as_str(), who.method.as_str()), ("ann", "browser"));
        let (status, message) = browser.call("FleetView/Status", &cookie, &[]).await.grpc();
        assert_eq!(
            (status, StatusResponse::decode(message).unwrap().verdict.as_str()),
            (0, "unknown")
        );
        let unseen = browser.call("FleetView/Status", "", &[]).await;
        assert_eq!(unseen.grpc().0, Code::Unauthenticated as i32);
        for wrong in [
            [("x-fleet-dashboard", "")],
            [("origin", "https://evil.example")],
            [("origin", "")],
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
            [("content-type", "application/grpc")],
            [("content-type", "text/plain")],
        ] {
            let answer = browser.call("FleetView/Status", &cookie, &wrong).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{wrong:?}");
        }
        // Without anything of a browser it is a program, for which the cookie is nothing.
        let program = [("origin", ""), ("content-type", "application/grpc")];
        let answer = browser.call("FleetView/Status", &cookie, &program).await;
        assert_ne!(
            answer.headers.get("grpc-status").map(|s| s.as_bytes()),
            Some(&b"0"[..])
        );
        assert!(answer.body.is_empty(), "{:?}", answer.body);
        let used = serde_json::json!({ "token": token }).to_string().into_bytes();
        let again = browser.post("/login", used, &[]).await;
        assert_eq!(again.status, StatusCode::UNAUTHORIZED, "it is good once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_logs_nobody_in_or_out() {
    let fleet = Fleet::new().await;
    let browser = Browser::new(&fleet, &["h2"]);
    let token = own_login(&fleet, "viewer/ann").await;
    let body = serde_json::json!({ "token": token }).to_string().into_bytes();
    let foreign = [("origin", "https://evil.example")];
    let form = [
        ("x-fleet-dashboard", ""),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    for wrong in [&foreign[..], &form[..]] {
        assert_eq!(
            browser.post("/login", body.clone(), wrong).await.status,
            StatusCode::FORBIDDEN
        );
    }
    let cookie = browser.log_in(&token).await;
    let carried = [("cookie", cookie.as_str()), foreign[0]];
    assert_eq!(
        browser.post("/logout", Vec::new(), &carried).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(browser.call("FleetView/Status", &cookie, &[]).await.grpc().0, 0);
    let too_large = browser.post("/login", vec![b' '; 5000], &[]).await;
    assert_eq!(too_large.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_browser_ends_by_logout_and_by_revocation() {
    let fleet = Fleet::new().await;
    let browser = Browser::new(&fleet, &["h2"]);
    let cookie = browser.log_in(&own_login(&fleet, "viewer/ann").await).await;
    let out = browser.post("/logout", Vec::new(), &[("cookie", &cookie)]).await;
    assert_eq!(out.status, StatusCode::OK);
    assert!(
        out.header("set-cookie").contains("Max-Age=0"),
        "{}",
        out.header("set-cookie")
    );
    let ended = browser.call("FleetView/Status", &cookie, &[]).await;
    assert_eq!(ended.grpc().0, Code::Unauthenticated as i32);
    let cookie = browser.log_in(&own_login(&fleet, "viewer/ann").await).await;
    let mut root = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let revoke = RevokeRequest {
        name: "ann".to_owned(),
    };
    assert_eq!(root.revoke(revoke).await.unwrap().into_inner().sessions, 1);
    let revoked = browser.call("FleetView/Status", &cookie, &[]).await;
    assert_eq!(revoked.grpc().0, Code::Unauthenticated as i32);
}

/// The rights of a login that a person makes for itself are those of the certificate, and survive a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_for_oneself_has_the_rights_of_its_maker_and_ends_with_its_session() {
    let fleet = Fleet::new().await;
    let browser = Browser::new(&fleet, &["h2"]);
    let verbs = async |browser: &Browser, cookie: &str| {
        let (_, message) = browser.call("FleetAdmin/WhoAmI", cookie, &[]).await.grpc();
        let grants = WhoAmIResponse::decode(message).unwrap().grants;
        grants
            .into_iter()
            .flat_map(|grant| grant.verbs)
            .collect::<Vec<_>>()
    };
    let viewer = browser.log_in(&own_login(&fleet, "viewer/ann").await).await;
    assert_eq!(verbs(&browser, &viewer).await, ["see"]);
    let stranger = browser.log_in(&own_login(&fleet, "person/eve").await).await;
    assert!(verbs(&browser, &stranger).await.is_empty());
    let mut root = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let invite = InviteRequest {
        name: "ann".to_owned(),
        groups: Vec::new(),
    };
    let invited = root.invite(invite).await.unwrap().into_inner().token;
    let invited = browser.log_in(&invited).await;
    assert!(
        verbs(&browser, &invited).await.is_empty(),
        "an invitation gives no role of a certificate"
    );
    let admin = browser.log_in(&own_login(&fleet, "admin/root").await).await;
    assert!(verbs(&browser, &admin).await.contains(&"administer".to_owned()));
    // A login made by a session is good for as long as that session.
    let (status, message) = browser.call("FleetAdmin/CreateLogin", &viewer, &[]).await.grpc();
    assert_eq!(status, 0);
    let token = proto::v1::CreateLoginResponse::decode(message).unwrap().token;
    let second = browser.log_in(&token).await;
    let ends = async |cookie: &str| {
        let (_, message) = browser.call("FleetAdmin/WhoAmI", cookie, &[]).await.grpc();
        WhoAmIResponse::decode(message).unwrap().expires.unwrap()
    };
    let (first, second) = (ends(&viewer).await, ends(&second).await);
    assert!(
        (second.seconds, second.nanos) <= (first.seconds, first.nanos),
        "{second:?} is after {first:?}"
    );
    let fleet = fleet.restart().await;
    let browser = Browser::new(&fleet, &["h2"]);
    assert_eq!(verbs(&browser, &viewer).await, ["see"]);
}

/// A certificate that is revoked ends what it has made: sessions, and login tokens that were not used yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_certificate_that_has_made_its_login() {
    let fleet = Fleet::new().await;
    let browser = Browser::new(&fleet, &["h2"]);
    let before = browser.log_in(&own_login(&fleet, "operator/olga").await).await;
    let unused = own_login(&fleet, "operator/olga").await;
    assert_eq!(browser.call("FleetView/Status", &before, &[]).await.grpc().0, 0);
    let mut root = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let revoke = RevokeCertificateRequest {
        name: "olga".to_owned(),
        ..RevokeCertificateRequest::default()
    };
    root.revoke_certificate(revoke).await.unwrap();
    let ended = browser.call("FleetView/Status", &before, &[]).await;
    assert_eq!(ended.grpc().0, Code::Unauthenticated as i32);
    let later = browser.log_in(&unused).await;
    let refused = browser.call("FleetView/Status", &later, &[]).await;
    assert_eq!(refused.grpc().0, Code::Unauthenticated as i32);
}

/// What the CLI uses is as it was: gRPC over HTTP/2 with a certificate or a bearer, and no cookie.
#[tokio::test(flavor = "multi_thread")]
async fn native_clients_need_nothing_of_a_browser() {
    let fleet = Fleet::new().await;
    let mut ann = FleetAdminClient::new(fleet.view_as("viewer/ann").await);
    let who = ann.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(who.method, "certificate");
    let refused = ann.logout(LogoutRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let browser = Browser::new(&fleet, &["h2"]);
    let cookie = browser.log_in(&own_login(&fleet, "viewer/ann").await).await;
    let mut request = tonic::Request::new(WhoAmIRequest {});
    request
        .metadata_mut()
        .insert(COOKIE.as_str(), cookie.parse().unwrap());
    let port = fleet.running.view.port();
    let mut nobody = FleetAdminClient::new(fleet.connect(port, None).await.unwrap());
    let refused = nobody.who_am_i(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "a cookie is for pages");
}
