//! Notifications from a real cluster to real receivers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
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
struct Sink(Arc<Mutex<Vec<(String, Value)>>>);

impl Sink {
    /// Answers 200 to everything.
    fn start(address: &str) -> (Sink, u16) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = Sink::default();
        let requests = sink.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let (mut lines, mut length) = (Vec::new(), 0);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or_default() == 0 || line == "\r\n" {
                        break;
                    }
                    let lower = line.to_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or_default();
                    }
                    lines.push(line);
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).ok();
                let path = lines
                    .first()
                    .and_then(|line| line.split(' ').nth(1))
                    .unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                requests.lock().unwrap().push((path.to_owned(), body));
                reader
                    .get_mut()
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .ok();
            }
        });
        (sink, port)
    }

    fn of(&self, path: &str) -> Vec<Value> {
        let requests = self.0.lock().unwrap();
        let of = requests.iter().filter(|(at, _)| at == path);
        of.map(|(_, body)| body.clone()).collect()
    }

    fn until(&self, path: &str, count: usize) -> Vec<Value> {
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

#[test]
#[ignore = "needs clusters: make test"]
fn what_becomes_of_backups_and_restores_is_received_once_by_each_kind_of_receiver() {
    let host = bed().plan().wan(1);
    let (sink, port) = Sink::start(&host);
    let gateway = format!("{host}:19091");
    let _gateway = receiver(
        "prometheus-pushgateway".into(),
        &[format!("--web.listen-address={gateway}")],
    );
    let (smtp, mails) = (format!("{host}:11025"), format!("{host}:18025"));
    let arguments = [
        format!("--smtp={smtp}"),
        format!("--listen={mails}"),
        "--disable-version-check".to_owned(),
    ];
    let _mailpit = receiver(Workspace::here().program("mailpit"), &arguments);
    let base = format!("http://{host}:{port}");

    let place = Place::new("a", "notify");
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "slack" }, "stringData": { "url": format!("{base}/slack") } }),
        place.repository("nas", &s3(0, "notify")),
    ]);
    let notifications = json!({
        "pushgateway": { "url": format!("http://{gateway}") },
        "ntfy": { "serverURL": base, "topic": "backups", "onlyOnFailure": true },
        "email": { "smtpServer": smtp, "from": "fleet@example.org", "to": "ops@example.org" },
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
    let status = |value: u8| {
        format!(
            "backup_status{{backup=\"orders\",instance=\"\",job=\"backup\",namespace=\"notify\"}} {value}\n"
        )
    };
    let pushed = |value: u8| {
        until("figures of the backup", || {
            get(&format!("http://{gateway}/metrics")).filter(|text| text.contains(&status(value)))
        })
    };
    pushed(1);

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
    pushed(0);
    let mails = until("two mails", || {
        let list: Value = serde_json::from_str(&get(&format!("http://{mails}/api/v1/messages"))?).ok()?;
        let list = list["messages"].as_array()?.clone();
        (list.len() >= 2).then_some(list)
    });
    let subjects: Vec<&str> = mails.iter().filter_map(|mail| mail["Subject"].as_str()).collect();
    assert_eq!(
        subjects,
        [
            "notify/orders - Backup Failed",
            "notify/orders - Backup Succeeded"
        ]
    );

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
    // Words of the refusal; "" for accepted.
    for (notifications, words) in [
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
    ] {
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
