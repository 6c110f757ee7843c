//! An OpenID Connect issuer with a device flow and a login in a browser, which answers as a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An issuer on loopback.
pub struct Issuer {
    pub url: String,
    /// Key that signs, and its id; only the first is published until the second is asked for.
    keys: [KeyPair; 2],
    pub now: Mutex<Now>,
}

/// What it answers next.
#[derive(Default)]
pub struct Now {
    /// Error of the token endpoint; a token without.
    pub error: &'static str,
    /// The key that signs, and how many are published.
    pub signs: usize,
    pub publishes: usize,
    pub audience: &'static str,
    /// How often the token endpoint was asked.
    pub asked: usize,
    /// What a browser brought, until its code is used.
    pub sent: HashMap<String, String>,
    /// Nonce of its tokens, in place of the one that was sent.
    pub nonce: Option<&'static str>,
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|n| DIGITS[(word >> (18 - 6 * n) & 63) as usize]);
        text.extend(digits.map(char::from));
    }
    text
}

/// Begins to serve.
pub async fn issuer() -> Arc<Issuer> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = Arc::new(Issuer {
        url: format!("http://{}", listener.local_addr().unwrap()),
        keys: [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()],
        now: Mutex::new(Now {
            error: "authorization_pending",
            publishes: 1,
            audience: "fleet",
            ..Now::default()
        }),
    });
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(describes))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize))
        .route("/device", post(device))
        .route("/token", post(token))
        .with_state(issuer.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    issuer
}

async fn describes(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let url = &issuer.url;
    Json(json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": format!("{url}/token"),
        "device_authorization_endpoint": format!("{url}/device"),
        "authorization_endpoint": format!("{url}/authorize"),
    }))
}

async fn keys(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let published = issuer.now.lock().unwrap().publishes;
    let key = |(id, key): (usize, &KeyPair)| {
        // An uncompressed point: 4, x, y.
        let point = key.der_bytes();
        let (x, y) = (base64_url(&point[1..33]), base64_url(&point[33..65]));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id.to_string(), "x": x, "y": y })
    };
    let keys: Vec<Value> = issuer.keys.iter().take(published).enumerate().map(key).collect();
    Json(json!({ "keys": keys }))
}

async fn device(body: String) -> Json<Value> {
    assert!(
        body.contains("client_id=fleet") && body.contains("scope=openid%20profile%20email"),
        "{body}"
    );
    Json(json!({
        "device_code": "d", "user_code": "AB-CD", "verification_uri": "http://x/device", "interval": 1, "expires_in": 600,
    }))
}

/// A person who confirms at once.
async fn authorize(
    State(issuer): State<Arc<Issuer>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Redirect {
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "fleet"),
        ("scope", "openid profile email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(asked[name], value, "{asked:?}");
    }
    let back = format!("{}?code=c%2B1&state={}", asked["redirect_uri"], asked["state"]);
    issuer.now.lock().unwrap().sent = asked;
    Redirect::to(&back)
}

async fn token(State(issuer): State<Arc<Issuer>>, body: String) -> (StatusCode, Json<Value>) {
    let form = format!("/?{body}").parse().unwrap();
    let Query(form) = Query::<HashMap<String, String>>::try_from_uri(&form).unwrap();
    assert_eq!(form["client_id"], "fleet");
    let mut now = issuer.now.lock().unwrap();
    now.asked += 1;
    let sent = std::mem::take(&mut now.sent);
    if form["grant_type"] == "authorization_code" {
        let challenge = base64_url(&Sha256::digest(&form["code_verifier"]));
        let fits = sent.get("code_challenge") == Some(&challenge)
            && sent.get("redirect_uri") == form.get("redirect_uri")
            && form["code"] == "c+1";
        if !fits {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
        }
    } else {
        assert_eq!(form["device_code"], "d");
    }
    if !now.error.is_empty() {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": now.error })));
    }
    let header = Header {
        kid: Some(now.signs.to_string()),
        ..Header::new(Algorithm::ES256)
    };
    let ends = hub::now() / 1000 + 60;
    let claims = json!({
        "iss": issuer.url, "aud": now.audience, "sub": "1", "exp": ends, "email": "ann@example.org", "groups": ["ops"],
        "nonce": now.nonce.map(str::to_owned).or(sent.get("nonce").cloned()),
    });
    let key = EncodingKey::from_ec_der(&issuer.keys[now.signs].serialize_der());
    let token = encode(&header, &claims, &key).unwrap();
    (StatusCode::OK, Json(json!({ "id_token": token })))
}
