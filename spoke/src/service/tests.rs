use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::root::Root;

struct Started {
    health: Health,
    metrics: Arc<Metrics>,
    fatal: Fatal,
    services: ServicesHandle,
}

impl Started {
    fn failures(&self) -> Option<String> {
        let metrics = self.metrics.render();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("fleet_service_failures_total"));
        line.map(str::to_owned)
    }
}

/// Restarts after `delay`; three failures are too many.
async fn start(services: Vec<Service>, delay: Duration) -> Started {
    let fatal = Fatal::default();
    let (root, _) = Actor::spawn(None, Root { fatal: fatal.clone() }, ())
        .await
        .unwrap();
    let (health, metrics) = (Health::default(), Arc::new(Metrics::new().unwrap()));
    let supervisor = Services {
        health: health.clone(),
        metrics: metrics.clone(),
        fatal: fatal.clone(),
        pace: Pace {
            backoff: Backoff::new(delay, delay, Jitter::None),
            window: Duration::from_secs(3600),
            limit: 3,
        },
    };
    let services = ServicesHandle::start(root.get_cell(), supervisor, services)
        .await
        .unwrap();
    Started {
        health,
        metrics,
        fatal,
        services,
    }
}

async fn until(what: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap();
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Panic,
    End,
    Error,
}

const FAULTS: [(Fault, &str); 3] = [
    (Fault::Panic, "boom"),
    (Fault::End, "it ended by itself"),
    (Fault::Error, "no room: disk full"),
];

/// Fails at its first `faults` starts, and lives from then on.
fn failing(fault: Fault, faults: u32, starts: &Arc<AtomicU32>) -> Service {
    let starts = starts.clone();
    Service::new("part", Stage::Edge, "turn it off and on", move |running| {
        let n = starts.fetch_add(1, Ordering::SeqCst);
        async move {
            if n >= faults {
                running.stop.cancelled().await;
                return Ok(());
            }
            match fault {
                Fault::Panic => panic!("boom"),
                Fault::End => Ok(()),
                Fault::Error => Err(anyhow::anyhow!("disk full").context("no room")),
            }
        }
    })
}

#[tokio::test]
async fn readiness_names_a_service_that_failed_and_why() {
    for (fault, cause) in FAULTS {
        let starts = Arc::default();
        let started = start(vec![failing(fault, 1, &starts)], LONG).await;
        let expected = [format!("part: failed and will be started again: {cause}")];
        until(|| started.health.unwell() == expected).await;
        until(|| started.failures().as_deref() == Some("fleet_service_failures_total{service=\"part\"} 1"))
            .await;
        // It can be stopped while it waits for its restart.
        started.services.stop(Stage::Edge).await;
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_service_that_failed_is_started_again() {
    for (fault, _) in FAULTS {
        let starts = Arc::default();
        let started = start(vec![failing(fault, 2, &starts)], SHORT).await;
        until(|| starts.load(Ordering::SeqCst) == 3 && started.health.unwell().is_empty()).await;
        assert!(started.fatal.cause.borrow().is_none());
    }
}

#[tokio::test]
async fn one_that_keeps_failing_ends_the_process_with_its_name_and_its_cause() {
    for (fault, cause) in FAULTS {
        let starts = Arc::default();
        let started = start(vec![failing(fault, u32::MAX, &starts)], SHORT).await;
        let text = started.fatal.failed().await;
        for part in [
            "service part failed 3 times within 3600 seconds",
            cause,
            "turn it off and on",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn readiness_names_what_a_service_waits_for() {
    let trigger = Arc::new(tokio::sync::Notify::new());
    let listed = trigger.clone();
    let service = Service::new("watch/Job", Stage::Intake, "", move |running| {
        let listed = listed.clone();
        async move {
            running.waits("the first list is not complete");
            listed.notified().await;
            running.well();
            running.stop.cancelled().await;
            Ok(())
        }
    });
    let started = start(vec![service], LONG).await;
    until(|| started.health.unwell() == ["watch/Job: the first list is not complete"]).await;
    trigger.notify_one();
    until(|| started.health.unwell().is_empty()).await;
}

#[tokio::test]
async fn services_end_by_stages_and_that_is_no_failure() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let part = |name: &'static str, stage| {
        let ended = ended.clone();
        Service::new(name, stage, "", move |running| {
            let ended = ended.clone();
            async move {
                running.stop.cancelled().await;
                ended.lock().unwrap().push(name);
                Ok(())
            }
        })
    };
    let services = vec![
        part("admin", Stage::Admin),
        part("link", Stage::Edge),
        part("watch", Stage::Intake),
    ];
    let started = start(services, SHORT).await;
    for (stage, expected) in [
        (Stage::Intake, &["watch"][..]),
        (Stage::Edge, &["watch", "link"]),
        (Stage::Admin, &["watch", "link", "admin"]),
    ] {
        started.services.stop(stage).await;
        assert_eq!(*ended.lock().unwrap(), expected);
    }
    assert_eq!(started.failures(), None);
    assert!(started.fatal.cause.borrow().is_none());
}
