use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;

use super::*;

const NOW: Millis = 1_795_000_000_000;

struct Key(KeyPair);

impl Key {
    fn new() -> Key {
        Key(KeyPair::generate().unwrap())
    }

    fn set(&self, id: &str) -> JwkSet {
        use base64_url as url;
        // An uncompressed point: 4, x, y.
        let point = self.0.der_bytes();
        let (x, y) = (url(&point[1..33]), url(&point[33..65]));
        let key =
            json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": x, "y": y });
        serde_json::from_value(json!({ "keys": [key] })).unwrap()
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_ec_der(&self.0.serialize_der())).unwrap()
    }
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

fn header() -> Header {
    Header {
        kid: Some("one".to_owned()),
        ..Header::new(Algorithm::ES256)
    }
}

fn expected() -> Expected {
    Expected {
        issuer: "https://issuer".to_owned(),
        client: "fleet".to_owned(),
        user: "email".to_owned(),
        groups: "groups".to_owned(),
        prefix: "oidc:".to_owned(),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer", "aud": "fleet", "sub": "17", "exp": NOW / 1000 + 60, "iat": NOW / 1000,
        "email": "ann@example.org", "email_verified": true, "groups": ["ops", "a b", 3],
    })
}

#[test]
fn a_token_of_the_issuer_names_a_person_with_its_groups() {
    let key = Key::new();
    let token = key.sign(&header(), &claims());
    let named = expected().verify(&token, &key.set("one"), None, NOW).unwrap();
    assert_eq!(named.name, "oidc:ann@example.org");
    assert_eq!(named.groups, ["oidc:ops"]);
}

#[test]
fn a_claim_that_is_not_as_expected_is_refused() {
    let key = Key::new();
    let verify = |claims: &Value| expected().verify(&key.sign(&header(), claims), &key.set("one"), None, NOW);
    for (claim, value) in [
        ("iss", json!("https://other")),
        ("aud", json!("other")),
        ("aud", json!(["fleet", "other"])),
        ("azp", json!("other")),
        ("exp", json!(NOW / 1000 - 61)),
        ("exp", json!("9999999999")),
        ("exp", json!(null)),
        ("nbf", json!(NOW / 1000 + 3600)),
        ("nbf", json!("1")),
        ("iat", json!(NOW / 1000 + 3600)),
        ("email", json!("")),
        ("email", json!("a b")),
        ("email", json!(5)),
        ("email_verified", json!(false)),
        ("email_verified", json!("true")),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        assert!(verify(&claims).is_err(), "{claim} {value}");
    }
    for claim in ["iss", "aud", "sub", "exp", "email"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        assert!(verify(&claims).is_err(), "without {claim}");
    }
    let mut several = claims();
    several["aud"] = json!(["fleet", "other"]);
    several["azp"] = json!("fleet");
    assert!(verify(&several).is_ok());
}

#[test]
fn a_signature_that_is_not_the_issuers_is_refused() {
    let (key, other) = (Key::new(), Key::new());
    let verify = |token: &str| expected().verify(token, &key.set("one"), None, NOW);
    assert!(matches!(
        verify(&other.sign(&header(), &claims())),
        Err(Rejected::Invalid(_))
    ));
    let token = key.sign(&header(), &claims());
    assert_eq!(
        expected().verify(&token, &key.set("two"), None, NOW),
        Err(Rejected::UnknownKey)
    );
    // The published key as the secret of a symmetric signature.
    let symmetric = Header {
        kid: Some("one".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let secret = EncodingKey::from_secret(key.0.der_bytes());
    let forged = encode(&symmetric, &claims(), &secret).unwrap();
    assert_eq!(verify(&forged), Err(Rejected::Signature(Algorithm::HS256)));
    let parts: Vec<&str> = token.split('.').collect();
    let none = base64_url(br#"{"alg":"none","kid":"one"}"#);
    for unsigned in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        "x".to_owned(),
    ] {
        assert!(verify(&unsigned).is_err(), "{unsigned}");
    }
}

#[test]
fn a_token_of_another_login_is_refused() {
    let key = Key::new();
    let mut claims = claims();
    let verify = |claims: &Value, nonce: Option<&str>| {
        let token = key.sign(&header(), claims);
        expected().verify(&token, &key.set("one"), nonce, NOW)
    };
    assert!(verify(&claims, Some("mine")).is_err(), "it has none");
    claims["nonce"] = json!("other");
    assert!(verify(&claims, Some("mine")).is_err());
    claims["nonce"] = json!("mine");
    assert!(verify(&claims, Some("mine")).is_ok() && verify(&claims, None).is_ok());
}
