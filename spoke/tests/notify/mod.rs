//! Notifications against real receivers: Debian's Pushgateway, mailpit, and a sink that checks requests as receivers
//! document them.

mod delivery;
mod mail;
mod receivers;
mod requests;
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::notifications::NotificationConfig;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use spoke::backoff::{Backoff, Jitter};
use spoke::clock::{SystemClock, SystemRandom};
use spoke::events::Events;
use spoke::metrics::Metrics;
use spoke::notify::{
    Addresses, Change, Figures, Notifier, Occasion, Pace, Parts, Secrets, Sender, Subject, Unread,
};
use spoke::world::Key;
use tokio_util::sync::CancellationToken;

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

/// `secrets` are of namespace shop.
fn start_with(secrets: &[(&str, &[(&str, &str)])], addresses: Addresses, pace: Pace) -> Running {
    let secrets = secrets.iter().map(|(name, data)| {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        (Key::new("shop", name), data.collect::<Data>())
    });
    start_on(Store(secrets.collect()), addresses, pace)
}

fn start_on(secrets: impl Secrets + 'static, addresses: Addresses, pace: Pace) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (notifier, queue) = Notifier::new(metrics.clone());
    let parts = Parts {
        secrets: Arc::new(secrets),
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
