//! The HTTP request that takes a notification to a receiver. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crds::notifications::{PushgatewayConfig, WebhookConfig};
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use jiff::Timestamp;
use ring::hmac;

use super::http::{Failure, Outgoing};
use super::{Notification, Target, render};

/// Data of a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Key of a Secret with certificate authorities beside the machine's own, in PEM.
pub const CA: &str = "ca.crt";
/// Prefix of a key of Standard Webhooks, whose rest is base64.
const KEY_PREFIX: &str = "whsec_";

/// The request for a target that is reached by HTTP.
///
/// # Errors
/// It cannot be made of what the resource and its Secret hold.
pub fn outgoing(
    target: &Target,
    notification: &Notification,
    secret: Option<&Data>,
    now: Timestamp,
) -> Result<Outgoing, Failure> {
    if let Some(secret) = secret {
        useful(target, secret)?;
    }
    let none = Data::new();
    let secret = secret.unwrap_or(&none);
    let mut headers = authorization(secret)?;
    let (method, url, body, content) = match target {
        Target::Pushgateway(config) => (
            Method::PUT,
            group(config, notification),
            render::pushgateway(notification),
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        Target::Ntfy(config) => (
            Method::POST,
            format!("{}/", config.server_url.trim_end_matches('/')),
            render::ntfy(config, notification).to_string(),
            "application/json",
        ),
        Target::Slack(config) => (
            Method::POST,
            text(secret, "url")?.ok_or_else(|| Failure::later("the Secret has no key url"))?,
            render::slack(config, notification).to_string(),
            "application/json",
        ),
        Target::Webhook(config) => {
            let body = webhook_body(config, notification)?;
            headers.extend(signature(&notification.id, &body, secret, now)?);
            (Method::POST, config.url.clone(), body, "application/json")
        }
        Target::Email(_) => return Err(Failure::last("mail does not go by HTTP")),
    };
    headers.push((CONTENT_TYPE, HeaderValue::from_static(content)));
    Ok(Outgoing {
        method,
        url,
        headers,
        body,
        ca: secret.get(CA).cloned(),
    })
}

/// Refuses a Secret with none of the keys that this receiver uses, or with one that is misspelt: what was to be sent with it
/// would be missing.
fn useful(target: &Target, secret: &Data) -> Result<(), Failure> {
    let known: &[&str] = match target {
        Target::Slack(_) => &["url"],
        Target::Webhook(_) => &["hmacKey", "token", "username"],
        Target::Pushgateway(_) | Target::Ntfy(_) | Target::Email(_) => &["token", "username"],
    };
    let misspelt = |given: &&String| {
        let given = given.as_str();
        known
            .iter()
            .any(|key| key.eq_ignore_ascii_case(given) && *key != given)
    };
    if let Some(given) = secret.keys().find(misspelt) {
        return Err(Failure::later(format!(
            "the Secret has the key {given}; the keys are written: {}",
            known.join(", ")
        )));
    }
    for key in known {
        if text(secret, key)?.is_some() {
            return Ok(());
        }
    }
    if is_only_ca(secret) {
        return Ok(());
    }
    Err(Failure::later(format!(
        "the Secret has none of these keys: {}",
        known.join(", ")
    )))
}

/// Whether a Secret names a certificate authority, and is for nothing else.
pub fn is_only_ca(secret: &Data) -> bool {
    secret.keys().eq([CA])
}

fn webhook_body(config: &WebhookConfig, notification: &Notification) -> Result<String, Failure> {
    match config
        .body_template
        .as_deref()
        .filter(|template| !template.is_empty())
    {
        None => Ok(render::document(notification).to_string()),
        Some(template) => {
            render::template(template, notification).map_err(|error| Failure::last(error.to_string()))
        }
    }
}

/// A key of a Secret as text, without line breaks at its end.
///
/// # Errors
/// It is not text.
pub fn text(secret: &Data, key: &str) -> Result<Option<String>, Failure> {
    let Some(bytes) = secret.get(key) else {
        return Ok(None);
    };
    let text =
        std::str::from_utf8(bytes).map_err(|_| Failure::last(format!("{key} of the Secret is not text")))?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A token wins over user name and password, as in the original operator.
fn authorization(secret: &Data) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let token = text(secret, "token")?;
    let (username, password) = (text(secret, "username")?, text(secret, "password")?);
    let value = match (token, username, password) {
        (Some(token), ..) => format!("Bearer {token}"),
        (None, Some(username), password) => {
            let both = format!("{username}:{}", password.unwrap_or_default());
            format!("Basic {}", STANDARD.encode(both))
        }
        (None, None, _) => return Ok(Vec::new()),
    };
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| Failure::last("token or password of the Secret cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(vec![(AUTHORIZATION, value)])
}

/// Headers of Standard Webhooks.
fn signature(
    id: &str,
    body: &str,
    secret: &Data,
    now: Timestamp,
) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let time = now.as_second();
    let header = |name: &'static str, value: String| {
        let value = HeaderValue::try_from(value).map_err(|_| Failure::last("a header cannot be written"))?;
        Ok::<_, Failure>((HeaderName::from_static(name), value))
    };
    let mut headers = vec![
        header("webhook-id", id.to_owned())?,
        header("webhook-timestamp", time.to_string())?,
    ];
    if let Some(key) = text(secret, "hmacKey")? {
        let key = match key.strip_prefix(KEY_PREFIX) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| Failure::last("hmacKey of the Secret: no base64 after whsec_"))?,
            None => key.into_bytes(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes());
        headers.push(header(
            "webhook-signature",
            format!("v1,{}", STANDARD.encode(tag.as_ref())),
        )?);
    }
    Ok(headers)
}

/// URL of a group: job, backup and namespace.
fn group(config: &PushgatewayConfig, notification: &Notification) -> String {
    let job = config.job_name.as_deref().filter(|job| !job.is_empty());
    let key = &notification.subject.key;
    let labels = [
        ("job", job.unwrap_or("backup")),
        ("backup", &*key.name),
        ("namespace", &*key.namespace),
    ];
    let part = |(name, value): (&str, &str)| {
        let plain = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_' | '.');
        if value.chars().all(plain) {
            format!("/{name}/{value}")
        } else {
            format!("/{name}@base64/{}", URL_SAFE_NO_PAD.encode(value))
        }
    };
    let path: String = labels.into_iter().map(part).collect();
    format!("{}/metrics{path}", config.url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::delivery;
    use super::*;

    #[test]
    fn a_secret_without_a_known_key_is_not_the_same_as_none() {
        let receiver = json!({ "url": "http://h", "serverURL": "http://h", "topic": "t", "credentialsSecretRef": { "name": "s" } });
        let webhook = Target::Webhook(serde_json::from_value(receiver.clone()).unwrap());
        let ntfy = Target::Ntfy(serde_json::from_value(receiver.clone()).unwrap());
        let pushgateway = Target::Pushgateway(serde_json::from_value(receiver.clone()).unwrap());
        let slack = Target::Slack(serde_json::from_value(receiver).unwrap());
        let made = |target: &Target, secret: Value| {
            let secret: Option<std::collections::BTreeMap<String, String>> =
                serde_json::from_value(secret).unwrap();
            let secret = secret.map(|data| data.into_iter().map(|(key, v)| (key, v.into_bytes())).collect());
            let notification = delivery("shop", "1", target.clone()).notification;
            outgoing(target, &notification, secret.as_ref(), Timestamp::UNIX_EPOCH).map(|_| ())
        };
        for target in [&webhook, &ntfy, &pushgateway] {
            for good in [
                json!(null),
                json!({ "token": "t", "x": "y" }),
                json!({ "username": "u" }),
                json!({ "ca.crt": "c" }),
            ] {
                assert_eq!(made(target, good.clone()), Ok(()), "{good}");
            }
            for bad in [
                json!({}),
                json!({ "tokn": "t" }),
                json!({ "token": " " }),
                json!({ "password": "p", "ca.crt": "c" }),
            ] {
                let failure = made(target, bad.clone()).unwrap_err();
                assert!(failure.text.contains("none of these keys"), "{bad}: {failure}");
            }
        }
        assert_eq!(made(&webhook, json!({ "hmacKey": "k" })), Ok(()));
        assert!(made(&ntfy, json!({ "hmacKey": "k" })).is_err());
        let unsigned = made(&webhook, json!({ "token": "t", "hmackey": "k" })).unwrap_err();
        assert!(unsigned.text.contains("the key hmackey"), "{unsigned}");
        assert_eq!(made(&slack, json!({ "url": "https://h" })), Ok(()));
        assert!(
            made(&slack, json!({ "token": "t" })).is_err() && made(&slack, json!({ "ca.crt": "c" })).is_err()
        );
    }
}
