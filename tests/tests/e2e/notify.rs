//! Notifications from a real cluster to real receivers.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::sink;
use tests::tools::Workspace;

use crate::support::{Place, SOON, bed, condition, s3};

struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn receiver(program: PathBuf, arguments: &[String]) -> Receiver {
    let child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Receiver(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

/// Requests by path, in their order.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<(String, Value)>>>);

impl Sink {
    /// Answers 200 to everything.
    pub fn start(address: &str) -> (Sink, u16) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = Sink::default();
        let requests = sink.0.clone();
        std::thread::spawn(move || {
            sink::serve(&listener, |path, body| {
                let body = serde_json::from_slice(body).unwrap_or_default();
                requests.lock().unwrap().push((path.to_owned(), body));
            });
        });
        (sink, port)
    }

    fn of(&self, path: &str) -> Vec<Value> {
        let requests = self.0.lock().unwrap();
        let of = requests.iter().filter(|(at, _)| at == path);
        of.map(|(_, body)| body.clone()).collect()
    }

    pub fn until(&self, path: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} requests to {path}"), || {
            let found = self.of(path);
            (found.len() >= count).then_some(found)
        })
    }
}

fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn get(url: &str) -> Option<String> {
    let output = Command::new("curl")
        .args(["-sf", "--max-time", "5", url])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every kind of receiver, on the address of this machine that pods reach.
struct Receivers {
    sink: Sink,
    /// URL of the sink.
    base: String,
    gateway: String,
    smtp: String,
    mails: String,
    _processes: [Receiver; 2],
}

impl Receivers {
    fn start() -> Receivers {
        let host = bed().plan().wan(1);
        let (sink, port) = Sink::start(&host);
        let gateway = format!("{host}:19091");
        let listen = format!("--web.listen-address={gateway}");
        let pushgateway = receiver("prometheus-pushgateway".into(), &[listen]);
        let (smtp, mails) = (format!("{host}:11025"), format!("{host}:18025"));
        let arguments = [
            format!("--smtp={smtp}"),
            format!("--listen={mails}"),
            "--disable-version-check".to_owned(),
        ];
        let mailpit = receiver(Workspace::here().program("mailpit"), &arguments);
        Receivers {
            sink,
            base: format!("http://{host}:{port}"),
            gateway: format!("http://{gateway}"),
            smtp,
            mails,
            _processes: [pushgateway, mailpit],
        }
    }

    fn until_pushed(&self, status: u8) {
        let group = "{backup=\"orders\",instance=\"\",job=\"backup\",namespace=\"notify\"}";
        let line = format!("backup_status{group} {status}\n");
        until("figures of the backup", || {
            get(&format!("{}/metrics", self.gateway)).filter(|text| text.contains(&line))
        });
    }

    /// Subjects, the newest first.
    fn until_mails(&self, count: usize) -> Vec<String> {
        until("mails", || {
            let list = get(&format!("http://{}/api/v1/messages", self.mails))?;
            let list: Value = serde_json::from_str(&list).ok()?;
            let mails = list["messages"].as_array()?;
            let subject = |mail: &Value| mail["Subject"].as_str().unwrap_or_default().to_owned();
            (mails.len() >= count).then(|| mails.iter().map(subject).collect())
        })
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_becomes_of_backups_and_restores_is_received_once_by_each_kind_of_receiver() {
    let receivers = Receivers::start();
    let (sink, base) = (&receivers.sink, &receivers.base);
    let place = Place::new("a", "notify");
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "slack" }, "stringData": { "url": format!("{base}/slack") } }),
        place.repository("nas", &s3(0, "notify")),
    ]);
    let notifications = json!({
        "pushgateway": { "url": receivers.gateway },
        "ntfy": { "serverURL": base, "topic": "backups", "onlyOnFailure": true },
        "email": { "smtpServer": receivers.smtp, "from": "fleet@example.org", "to": "ops@example.org" },
        "webhook": { "url": format!("{base}/hook") },
        "slack": { "credentialsSecretRef": { "name": "slack" } },
    });
    place.apply(&[place.backup(
        "orders",
        json!({ "name": "nas" }),
        json!({ "notifications": notifications }),
    )]);
    place.until_ready("resticbackup/orders");
    let object = place.get("resticbackup/orders");
    assert!(condition(&object, "NotInEffect").is_null(), "{object:#}");
    let run = place.run("orders", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    let hook = sink.until("/hook", 1);
    assert_eq!(
        (&hook[0]["type"], &hook[0]["data"]["name"]),
        (&json!("success"), &json!("orders"))
    );
    assert_eq!(hook[0]["data"]["snapshot"], run["snapshotID"]);
    sink.until("/slack", 1);
    receivers.until_pushed(1);

    // Nothing but a folder that does not exist.
    let broken = json!({ "notifications": notifications, "source": { "pvc": { "claimName": "data", "paths": ["/not-there"] } } });
    place.apply(&[place.backup("orders", json!({ "name": "nas" }), broken)]);
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "2");
    assert_eq!(run["result"], "Failed", "{run:#}");
    let ntfy = sink.until("/", 1);
    assert_eq!(
        (&ntfy[0]["topic"], &ntfy[0]["title"]),
        (&json!("backups"), &json!("notify/orders - Backup Failed"))
    );
    receivers.until_pushed(0);
    let subjects = [
        "notify/orders - Backup Failed",
        "notify/orders - Backup Succeeded",
    ];
    assert_eq!(receivers.until_mails(2), subjects);

    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "orders" }, "snapshotID": "latest", "target": { "pvc": { "claimName": "data", "path": "/back" } },
                  "notifications": { "webhook": { "url": format!("{base}/restore") } } } });
    place.apply(&[restore]);
    let ended = sink.until("/restore", 1);
    assert_eq!(ended[0]["type"], "restore-completed", "{ended:?}");
    // Each of them once.
    std::thread::sleep(Duration::from_secs(5));
    for (path, count) in [("/hook", 2), ("/slack", 2), ("/", 1), ("/restore", 1)] {
        assert_eq!(sink.of(path).len(), count, "{path}");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn each_rule_of_notifications_accepts_and_refuses_with_a_sentence() {
    let place = Place::new("a", "notifyrules");
    let file = tempfile::NamedTempFile::new().unwrap();
    let create = |notifications: &Value| {
        let backup = place.backup(
            "x",
            json!({ "name": "r" }),
            json!({ "notifications": notifications }),
        );
        std::fs::write(file.path(), backup.to_string()).unwrap();
        place.kubectl(&["create", "--dry-run=server", "-f", &file.path().to_string_lossy()])
    };
    for (notifications, words) in rules() {
        match create(&notifications) {
            Ok(_) => assert_eq!(words, "", "{notifications} was accepted"),
            Err(error) => {
                let text = format!("{error:#}");
                assert!(
                    !words.is_empty() && text.contains(words),
                    "{notifications}: {text}"
                );
            }
        }
    }
}

/// What is applied, and words of the refusal; "" for accepted.
fn rules() -> Vec<(Value, &'static str)> {
    let mail = |more: Value| {
        let mut mail = json!({ "smtpServer": "s:25", "from": "Fleet <a@b>", "to": "c@d, e@f" });
        mail.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "email": mail })
    };
    let hook = |url: &str| json!({ "webhook": { "url": url } });
    let template = |text: &str| json!({ "webhook": { "url": "https://h", "bodyTemplate": text } });
    let secret = json!({ "name": "s" });
    vec![
        (
            json!({ "pushgateway": { "url": "http://p.monitoring.svc:9091", "jobName": "backup" } }),
            "",
        ),
        (
            json!({ "ntfy": { "serverURL": "https://ntfy.sh", "topic": "a_b-1", "priority": 5 } }),
            "",
        ),
        (
            json!({ "ntfy": { "serverURL": "https://ntfy.sh", "topic": "a/b" } }),
            "topic takes",
        ),
        (hook("https://h.example.org:8443/a?b=c"), ""),
        (hook("ftp://h"), "write http"),
        (hook("https://user:password@h/"), "user name and password"),
        (hook("http://169.254.169.254/latest"), "link-local"),
        (template(r#"{"text": "{{title}} {{ message }}"}"#), ""),
        (template(r#"{"text": "{{password}}"}"#), "bodyTemplate knows"),
        (mail(json!({})), ""),
        (
            mail(json!({ "tls": "StartTLS", "credentialsSecretRef": secret })),
            "",
        ),
        (
            mail(json!({ "tls": "None", "credentialsSecretRef": secret })),
            "not sent without TLS",
        ),
        (mail(json!({ "to": "nobody" })), "write mail addresses"),
        (mail(json!({ "smtpServer": "smtp://s" })), "a host and a port"),
        (mail(json!({ "subject": "a\nb" })), "line breaks"),
        (json!({ "email": { "to": "a@b" } }), "email needs"),
        (json!({ "email": { "enabled": false, "to": "a@b" } }), ""),
        (json!({ "slack": { "credentialsSecretRef": secret } }), ""),
        (json!({ "slack": {} }), "credentialsSecretRef"),
    ]
}
