//! Notifications against real receivers: Debian's Pushgateway, mailpit, and a sink that checks requests as receivers
//! document them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "notify/receivers.rs"]
mod receivers;
#[path = "notify/sink.rs"]
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use crds::notifications::NotificationConfig;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use spoke::backoff::{Backoff, Jitter};
use spoke::clock::{SystemClock, SystemRandom};
use spoke::events::Events;
use spoke::metrics::Metrics;
use spoke::notify::{
    Addresses, Change, Figures, Notifier, Occasion, Pace, Parts, Secrets, Sender, Subject, Unread,
};
use spoke::world::Key;
use tokio_util::sync::CancellationToken;

use receivers::{Mailpit, Pushgateway};
use sink::Sink;

type Data = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct Store(BTreeMap<Key, Data>);

impl Secrets for Store {
    fn read(&self, key: Key) -> BoxFuture<'_, Result<Option<Data>, Unread>> {
        let data = self.0.get(&key).cloned();
        Box::pin(async move { Ok(data) })
    }
}

/// A notifier and its sender at work.
struct Running {
    notifier: Notifier,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    sender: tokio::task::JoinHandle<()>,
}

fn pace() -> Pace {
    Pace {
        backoff: Backoff::new(
            Duration::from_millis(50),
            Duration::from_millis(200),
            Jitter::None,
        ),
        attempts: 4,
        attempt: Duration::from_secs(5),
        deadline: Duration::from_secs(60),
    }
}

fn start_with(secrets: &[(&str, &[(&str, &str)])], addresses: Addresses, pace: Pace) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (notifier, queue) = Notifier::new(metrics.clone());
    let secrets = secrets.iter().map(|(name, data)| {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        (Key::new("shop", name), data.collect::<Data>())
    });
    let parts = Parts {
        secrets: Arc::new(Store(secrets.collect())),
        addresses,
        events: Events::new(metrics.clone()).0,
        metrics: metrics.clone(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        pace,
    };
    let stop = CancellationToken::new();
    let sender = tokio::spawn(Arc::new(Sender::new(queue, parts)).run(stop.clone()));
    Running {
        notifier,
        metrics,
        stop,
        sender,
    }
}

fn start(secrets: &[(&str, &[(&str, &str)])]) -> Running {
    start_with(secrets, Addresses { loopback: true }, pace())
}

impl Running {
    fn publish(&self, run: &str, occasion: Occasion, config: Value) {
        let config: NotificationConfig = serde_json::from_value(config).unwrap();
        let subject = Subject {
            kind: "ResticBackup",
            key: Key::new("shop", "orders"),
            uid: "uid".to_owned(),
            cluster: "berlin".to_owned(),
        };
        let change = Change {
            occasion,
            run: run.to_owned(),
            reason: (!occasion.is_well()).then(|| "ResticFailed".to_owned()),
            message: "the message".to_owned(),
            figures: Some(Figures {
                started: Timestamp::from_second(1_705_298_400).ok(),
                duration: Some(330.0),
                size: Some(2_469_606_195),
                files: Some(12543),
                snapshot: Some("0123456789abcdef".to_owned()),
                last_success: Timestamp::from_second(1_705_298_730).ok(),
            }),
        };
        self.notifier
            .publish(&subject, &config, vec![change], Timestamp::now());
    }

    /// Waits until so many deliveries to a kind of receiver had an outcome.
    async fn until(&self, target: &str, outcome: &str, count: usize) {
        let line =
            format!("fleet_notifications_total{{outcome=\"{outcome}\",target=\"{target}\"}} {count}\n");
        let waits = async {
            while !self.metrics.render().contains(&line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waits).await;
        waited.unwrap_or_else(|_| panic!("no {line}in {}", self.metrics.render()));
    }
}

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

#[tokio::test]
async fn mail_goes_by_tls_with_a_password_and_without_either() {
    let mail = Mailpit::start().await;
    let ca = mail.ca();
    let secrets: &[(&str, &[(&str, &str)])] = &[
        (
            "smtp",
            &[("username", "fleet"), ("password", "right"), ("ca.crt", &ca)],
        ),
        (
            "wrong",
            &[
                ("username", "fleet"),
                ("password", "not-this-one"),
                ("ca.crt", &ca),
            ],
        ),
        ("unknown", &[("username", "fleet"), ("password", "right")]),
    ];
    let running = start(secrets);
    let email = |secret: &str| {
        json!({ "email": { "smtpServer": format!("localhost:{}", mail.smtp), "from": "Backups <fleet@example.org>",
                           "to": "ops@example.org, oncall@example.org", "credentialsSecretRef": { "name": secret } } })
    };
    running.publish("1", Occasion::Failure, email("smtp"));
    running.until("email", "sent", 1).await;
    let message = mail.only_message().await;
    assert_eq!(message["Subject"], "shop/orders - Backup Failed");
    assert_eq!(message["From"]["Address"], "fleet@example.org");
    let to: Vec<&str> = message["To"]
        .as_array()
        .unwrap()
        .iter()
        .map(|to| to["Address"].as_str().unwrap())
        .collect();
    assert_eq!(to, ["ops@example.org", "oncall@example.org"]);
    assert!(
        message["Text"]
            .as_str()
            .unwrap()
            .contains("ResticFailed: the message"),
        "{message:#}"
    );
    running.publish("2", Occasion::Failure, email("wrong"));
    running.until("email", "failed", 1).await;
    running.publish("3", Occasion::Failure, email("unknown"));
    running.until("email", "failed", 2).await;
    assert_eq!(
        mail.messages().await.len(),
        1,
        "neither a wrong password nor an unknown certificate sends a mail"
    );
    let implicit = Mailpit::start_tls().await;
    let running_tls = start(&[(
        "smtp",
        &[
            ("username", "fleet"),
            ("password", "right"),
            ("ca.crt", &implicit.ca()),
        ],
    )]);
    let server = format!("localhost:{}", implicit.smtp);
    running_tls.publish(
        "1",
        Occasion::Failure,
        json!({ "email": { "smtpServer": server, "from": "a@b", "to": "c@d", "tls": "Implicit", "credentialsSecretRef": { "name": "smtp" } } }),
    );
    running_tls.until("email", "sent", 1).await;
    assert_eq!(implicit.messages().await.len(), 1);
    let plain = Mailpit::start_plain().await;
    let email = json!({ "email": { "smtpServer": format!("127.0.0.1:{}", plain.smtp), "from": "a@b", "to": "c@d", "subject": "Night" } });
    running.publish("4", Occasion::Success, email);
    running.until("email", "sent", 2).await;
    assert_eq!(plain.only_message().await["Subject"], "Night");
}

#[tokio::test]
async fn loopback_redirects_and_foreign_secrets_are_refused() {
    let sink = Sink::start().await;
    let running = start_with(&[], Addresses::default(), pace());
    running.publish(
        "1",
        Occasion::Failure,
        json!({ "webhook": { "url": sink.url("/") } }),
    );
    running.until("webhook", "refused", 1).await;
    let loopback = start(&[]);
    let elsewhere = Sink::start().await;
    sink.redirect(&elsewhere.url("/stolen"));
    loopback.publish(
        "2",
        Occasion::Failure,
        json!({ "webhook": { "url": sink.url("/") } }),
    );
    loopback.until("webhook", "failed", 1).await;
    assert_eq!(
        (sink.received(), elsewhere.received()),
        (1, 0),
        "a redirect is not followed"
    );
    let foreign = json!({ "ntfy": { "serverURL": elsewhere.url(""), "topic": "t", "credentialsSecretRef": { "name": "n", "namespace": "crm" } } });
    loopback.publish("3", Occasion::Failure, foreign);
    loopback.until("ntfy", "failed", 1).await;
    loopback.publish(
        "4",
        Occasion::Failure,
        json!({ "webhook": { "url": "http://169.254.169.254/latest" } }),
    );
    loopback.until("webhook", "refused", 1).await;
    assert_eq!(elsewhere.received(), 0);
}

#[tokio::test]
async fn a_receiver_that_hangs_or_floods_holds_up_no_other_and_is_given_up() {
    let (hangs, well) = (Sink::start().await, Sink::start().await);
    hangs.hang();
    let quick = Pace {
        attempt: Duration::from_millis(300),
        attempts: 2,
        ..pace()
    };
    let running = start_with(&[], Addresses { loopback: true }, quick);
    for run in 0..10 {
        running.publish(
            &format!("h{run}"),
            Occasion::Failure,
            json!({ "webhook": { "url": hangs.url("/") } }),
        );
    }
    running.publish(
        "w",
        Occasion::Failure,
        json!({ "webhook": { "url": well.url("/") } }),
    );
    well.next().await;
    running.until("webhook", "failed", 10).await;
    well.flood();
    running.publish(
        "f",
        Occasion::Failure,
        json!({ "ntfy": { "serverURL": well.url(""), "topic": "t" } }),
    );
    running.until("ntfy", "sent", 1).await;
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_sent_and_order_is_kept() {
    let sink = Sink::start().await;
    let running = start(&[]);
    for run in 0..20 {
        running.publish(
            &run.to_string(),
            Occasion::Failure,
            json!({ "webhook": { "url": sink.url("/") } }),
        );
        running.publish(
            &run.to_string(),
            Occasion::Failure,
            json!({ "webhook": { "url": sink.url("/") } }),
        );
    }
    running.stop.cancel();
    running.sender.await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..sink.received() {
        let request = sink.next().await;
        runs.push(request.json()["data"]["run"].as_str().unwrap().to_owned());
    }
    let expected: Vec<String> = (0..20).map(|run| run.to_string()).collect();
    assert_eq!(runs, expected, "each run once, in order");
}
