//! What is refused, given up, and sent in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;
use spoke::notify::{Addresses, Occasion, Pace, Secrets, Unread};
use spoke::world::Key;

use super::receivers::Mailpit;
use super::sink::Sink;
use super::{Data, Store, pace, start, start_on, start_with};

/// Panics at the first look.
#[derive(Default)]
struct Panicking(AtomicBool);

impl Secrets for Panicking {
    fn read(&self, _: Key) -> BoxFuture<'_, Result<Option<Data>, Unread>> {
        assert!(self.0.swap(true, Ordering::Relaxed), "injected");
        let data = Data::from([("token".to_owned(), b"t".to_vec())]);
        Box::pin(async move { Ok(Some(data)) })
    }
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
    let token = || Data::from([("token".to_owned(), b"t".to_vec())]);
    let store = Store(BTreeMap::from([
        (Key::new("crm", "n"), token()),
        (Key::new("shop", "n"), token()),
    ]));
    let loopback = start_on(store, Addresses { loopback: true }, pace());
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

#[tokio::test]
async fn each_occasion_is_received_by_a_webhook_and_by_mail() {
    let (sink, mail) = (Sink::start().await, Mailpit::start_plain().await);
    let running = start(&[]);
    let server = format!("127.0.0.1:{}", mail.smtp);
    let config = json!({ "webhook": { "url": sink.url("/") },
                         "email": { "smtpServer": server, "from": "a@b", "to": "c@d" } });
    for occasion in Occasion::ALL {
        running.publish("1", occasion, config.clone());
        assert_eq!(sink.next().await.json()["type"], occasion.as_str());
    }
    running.until("email", "sent", Occasion::ALL.len()).await;
    let mails = mail.messages().await;
    let subjects: BTreeSet<&str> = mails.iter().filter_map(|mail| mail["Subject"].as_str()).collect();
    // A run and a restore that fail have one title for one kind of resource.
    assert_eq!((mails.len(), subjects.len()), (9, 8), "{subjects:?}");
}

#[tokio::test]
async fn a_panic_in_an_attempt_fails_it_and_the_next_delivery_to_its_receiver_goes_out() {
    let sink = Sink::start().await;
    let running = start_on(Panicking::default(), Addresses { loopback: true }, pace());
    let config = json!({ "webhook": { "url": sink.url("/"), "credentialsSecretRef": { "name": "hook" } } });
    running.publish("1", Occasion::Failure, config.clone());
    running.until("webhook", "failed", 1).await;
    running.publish("2", Occasion::Failure, config);
    assert_eq!(sink.next().await.json()["data"]["run"], "2");
    running.until("webhook", "sent", 1).await;
}
