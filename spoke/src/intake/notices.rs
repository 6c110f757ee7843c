//! Warnings of Kubernetes about our CronJobs, Jobs and pods: only they give the reason why a pod is not created, or why its
//! volumes cannot be mounted. Nothing waits for these watches: without them only such reasons are missing.

use std::sync::Arc;

use crds::names;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event as Warning;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Routes;
use super::pauses::Pauses;
use super::selection::{Part, everything};
use crate::context::Context;
use crate::service::{Service, Stage};
use crate::world::{Key, Notice, World};

/// The warnings that are asked for. Those about pods are many in a cluster: what a pod's own status holds too, and what is
/// about containers that run, is left out.
const SELECTORS: [(&str, &str); 3] = [
    ("CronJob", "involvedObject.kind=CronJob,reason=FailedCreate"),
    ("Job", "involvedObject.kind=Job,reason=FailedCreate"),
    (
        "Pod",
        "involvedObject.kind=Pod,type=Warning,reason!=BackOff,reason!=Unhealthy,reason!=Failed,reason!=FailedScheduling",
    ),
];

/// One watch for each, as services.
pub(super) fn services(
    client: &Client,
    context: &Arc<Context>,
    routes: &Arc<Routes>,
    parts: &[Part],
) -> Vec<Service> {
    let service = |((name, selector), part): ((&str, &'static str), &Part)| {
        let (context, routes) = (context.clone(), routes.clone());
        let api = part.api::<Warning>(client.clone());
        Service::new(
            part.name(&format!("Event of a {name}")),
            Stage::Intake,
            super::ADVICE,
            move |running| {
                let stream = watch(api.clone(), everything().fields(selector));
                let (context, routes) = (context.clone(), routes.clone());
                async move {
                    running.well();
                    tokio::select! {
                        () = keep(stream, &context, &routes) => {}
                        () = running.stop.cancelled() => {}
                    }
                    Ok(())
                }
            },
        )
    };
    let of_all = |selector| parts.iter().map(move |part| (selector, part));
    SELECTORS.into_iter().flat_map(of_all).map(service).collect()
}

async fn keep(
    stream: impl futures::Stream<Item = watcher::Result<Event<Warning>>>,
    context: &Context,
    routes: &Routes,
) {
    let mut stream = Box::pin(stream);
    let mut pauses = Pauses::new(context.random.clone());
    while let Some(event) = stream.next().await {
        if let Ok(event) = &event {
            pauses.yielded(event);
        }
        match event {
            Ok(Event::Apply(warning) | Event::InitApply(warning)) => take(&warning, context, routes),
            // They expire, and are true as long as their object waits.
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
            Err(error) => {
                context.metrics.watch_error("Event");
                let pause = pauses.failed(&error, Instant::now());
                warn!(resource = "Event", %error, ?pause, "a watch broke and starts again");
                sleep(pause).await;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn take(warning: &Warning, context: &Context, routes: &Routes) {
    let about = &warning.involved_object;
    let (Some(name), Some(uid)) = (&about.name, &about.uid) else {
        return;
    };
    let reason = warning.reason.as_deref().unwrap_or_default();
    if !is_about_a_start(reason) || !is_ours(&context.world, about.namespace.as_deref(), name) {
        return;
    }
    context.metrics.watch_event("Event");
    let notice = Notice::new(
        reason,
        &warning.message.clone().unwrap_or_default(),
        time(warning),
    );
    if context.world.notices.put(uid, notice) {
        let key = Key::new(about.namespace.as_deref().unwrap_or_default(), name);
        routes.notice(&context.world, about.kind.as_deref(), &key);
    }
}

/// Others, such as about name servers, keep no pod from running.
fn is_about_a_start(reason: &str) -> bool {
    reason.starts_with("Failed") || reason == "NetworkNotReady"
}

/// By its name; one that a person made of our CronJob may have any, and is known.
fn is_ours(world: &World, namespace: Option<&str>, name: &str) -> bool {
    let key = Key::new(namespace.unwrap_or_default(), name);
    names::is_of_a_run(name) || world.jobs.get(&key).is_some() || world.pods.get(&key).is_some()
}

/// When it was last given: the three ways of the two Event APIs.
fn time(warning: &Warning) -> Timestamp {
    let series = warning
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref());
    let last = warning.last_timestamp.as_ref().map(|t| t.0);
    let first = warning.event_time.as_ref().map(|t| t.0);
    let created = warning.creation_timestamp().map(|t| t.0);
    series
        .map(|t| t.0)
        .or(last)
        .or(first)
        .or(created)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_a_warning_is_that_of_its_last_repetition() {
        let at = |event: serde_json::Value| {
            let mut event = event;
            event["involvedObject"] = json!({});
            event["metadata"] = json!({ "creationTimestamp": "2026-11-23T00:00:00Z" });
            time(&serde_json::from_value(event).unwrap()).to_string()
        };
        let series = json!({ "lastTimestamp": null, "eventTime": "2026-11-23T00:00:01.000000Z",
                             "series": { "count": 3, "lastObservedTime": "2026-11-23T00:00:09.000000Z" } });
        assert_eq!(at(series), "2026-11-23T00:00:09Z");
        assert_eq!(
            at(json!({ "lastTimestamp": "2026-11-23T00:00:05Z" })),
            "2026-11-23T00:00:05Z"
        );
        assert_eq!(at(json!({})), "2026-11-23T00:00:00Z");
    }
}
