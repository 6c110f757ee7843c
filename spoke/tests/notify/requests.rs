//! What each kind of receiver is sent.

use base64::Engine as _;
use serde_json::{Value, json};
use spoke::notify::Occasion;

use super::receivers::Pushgateway;
use super::sink::Sink;
use super::start;

#[tokio::test]
async fn a_pushgateway_has_the_figures_of_each_backup_under_its_group() {
    let gateway = Pushgateway::start().await;
    let running = start(&[]);
    let config =
        json!({ "pushgateway": { "enabled": true, "url": gateway.url(), "jobName": "nightly / backup" } });
    running.publish("1", Occasion::Success, config.clone());
    running.until("pushgateway", "sent", 1).await;
    let group = "{backup=\"orders\",instance=\"\",job=\"nightly / backup\",namespace=\"shop\"}";
    let scraped = gateway.scrape().await;
    for (name, value) in [
        ("backup_duration_seconds", "330"),
        ("backup_start_timestamp", "1.7052984e+09"),
        ("backup_status", "1"),
        ("backup_snapshot_size_bytes", "2.469606195e+09"),
        ("backup_snapshot_files_total", "12543"),
        ("backup_last_success_timestamp", "1.70529873e+09"),
    ] {
        let line = format!("{name}{group} {value}\n");
        assert!(scraped.contains(&line), "{line} in {scraped}");
    }
    running.publish("2", Occasion::Failure, config);
    running.until("pushgateway", "sent", 2).await;
    assert!(
        gateway
            .scrape()
            .await
            .contains(&format!("backup_status{group} 0\n"))
    );
}

#[tokio::test]
async fn ntfy_gets_what_its_documentation_asks_for() {
    let sink = Sink::start().await;
    let secrets: &[(&str, &[(&str, &str)])] = &[
        ("token", &[("token", "tk_abc\n")]),
        ("user", &[("username", "phil"), ("password", "pa:ss")]),
    ];
    let running = start(secrets);
    let url = sink.url("");
    let ntfy = |secret: Option<&str>, more: Value| {
        let mut ntfy = json!({ "serverURL": url, "topic": "backups" });
        if let Some(secret) = secret {
            ntfy["credentialsSecretRef"] = json!({ "name": secret });
        }
        for (name, value) in more.as_object().unwrap() {
            ntfy[name] = value.clone();
        }
        json!({ "ntfy": ntfy })
    };
    running.publish(
        "1",
        Occasion::Failure,
        ntfy(Some("token"), json!({ "priority": 5, "tags": ["db", "warning"] })),
    );
    let request = sink.next().await;
    request.is_ntfy("backups");
    assert_eq!(request.header("authorization"), Some("Bearer tk_abc"));
    let body = request.json();
    assert_eq!(body["title"], "shop/orders - Backup Failed");
    assert_eq!(
        (&body["priority"], &body["tags"]),
        (&json!(5), &json!(["db", "warning"]))
    );
    let text = body["message"].as_str().unwrap();
    for line in [
        "ResticFailed: the message",
        "Duration: 5m30s",
        "Size: 2.3 GiB",
        "Files: 12543",
        "Snapshot: 01234567",
        "Cluster: berlin",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    running.publish("2", Occasion::Success, ntfy(Some("user"), json!({})));
    let request = sink.next().await;
    request.is_ntfy("backups");
    assert_eq!(request.header("authorization"), Some("Basic cGhpbDpwYTpzcw=="));
    assert_eq!(request.json()["priority"], 4, "the default of the schema");
    running.publish(
        "3",
        Occasion::Success,
        ntfy(None, json!({ "onlyOnFailure": true })),
    );
    running.publish("4", Occasion::Stale, ntfy(None, json!({ "onlyOnFailure": true })));
    let request = sink.next().await;
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.json()["title"], "shop/orders - Backup Stale");
    running.until("ntfy", "sent", 3).await;
}

#[tokio::test]
async fn a_webhook_is_signed_and_says_the_same_at_each_attempt() {
    let sink = Sink::start().await;
    let running = start(&[("hook", &[("hmacKey", "whsec_c2VjcmV0"), ("token", "t")])]);
    sink.answer(&[500, 503]);
    let config =
        json!({ "webhook": { "url": sink.url("/hook?x=1"), "credentialsSecretRef": { "name": "hook" } } });
    running.publish("1", Occasion::Partial, config);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = sink.next().await;
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/hook?x=1")
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("authorization"), Some("Bearer t"));
        let id = request.header("webhook-id").unwrap().to_owned();
        let time = request.header("webhook-timestamp").unwrap();
        let signed = format!("{id}.{time}.{}", request.body);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        let signature = request.header("webhook-signature").unwrap();
        let tag = signature.strip_prefix("v1,").unwrap();
        let tag = base64::engine::general_purpose::STANDARD.decode(tag).unwrap();
        ring::hmac::verify(&key, signed.as_bytes(), &tag).unwrap();
        let body = request.json();
        assert_eq!(
            (&body["type"], &body["data"]["id"]),
            (&json!("partial"), &json!(id))
        );
        assert_eq!(body["data"]["durationSeconds"], 330.0);
        ids.push(id);
    }
    running.until("webhook", "sent", 1).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn templates_and_slack_are_posted_as_json() {
    let sink = Sink::start().await;
    let url = sink.url("/services/T/B/x");
    let running = start(&[("slack", &[("url", url.as_str())])]);
    running.publish(
        "1",
        Occasion::Success,
        json!({ "slack": { "credentialsSecretRef": { "name": "slack" }, "channel": "#ops" } }),
    );
    let request = sink.next().await;
    assert_eq!(request.path, "/services/T/B/x");
    assert_eq!(request.json()["channel"], "#ops");
    assert!(
        request.json()["text"]
            .as_str()
            .unwrap()
            .starts_with("*shop/orders - Backup Succeeded*\n")
    );
    let template = r#"{"body": "{{title}}", "tags": ["{{type}}"]}"#;
    running.publish(
        "2",
        Occasion::Success,
        json!({ "webhook": { "url": sink.url("/t"), "bodyTemplate": template } }),
    );
    let request = sink.next().await;
    assert_eq!(
        request.body,
        r#"{"body": "shop/orders - Backup Succeeded", "tags": ["success"]}"#
    );
}
