//! A list of ten thousand objects, page by page, as it comes from the API server.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::Uri;
use ractor::Actor;
use serde_json::{Value, json};

use super::*;
use crate::context::test_context_on;
use crate::kind::Kinds;
use crate::scripts::Scripts;

const OBJECTS: usize = 10_000;

/// Pages of CronJobs; every other type is empty. A watch never has news.
async fn serve(uri: Uri) -> Json<Value> {
    let query = uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.parse::<usize>().ok())
    };
    if query.contains("watch=true") {
        return std::future::pending().await;
    }
    let (from, limit) = (
        parameter("continue").unwrap_or(0),
        parameter("limit").unwrap_or(OBJECTS),
    );
    let to = (from + limit).min(OBJECTS);
    let items = (from..to).filter(|_| uri.path().ends_with("/cronjobs")).map(|n| {
        json!({
            "metadata": { "name": format!("c{n}"), "namespace": "ns", "uid": n.to_string(), "resourceVersion": "1" },
            "spec": { "schedule": "@daily", "jobTemplate": {} },
        })
    });
    let items: Vec<Value> = items.collect();
    let next = if to < OBJECTS && !items.is_empty() {
        to.to_string()
    } else {
        String::new()
    };
    Json(
        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1", "continue": next }, "items": items }),
    )
}

#[tokio::test]
#[ignore = "a measurement"]
async fn ten_thousand_objects_are_listed_without_a_timer_for_each() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    tokio::spawn(async {
        axum::serve(server, axum::Router::new().fallback(serve))
            .await
            .unwrap()
    });
    let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let context = test_context_on(client.clone());
    let config = <crate::arguments::Arguments as clap::Parser>::parse_from(["fleet-spoke"]).config;
    let (root, _) = Actor::spawn(
        None,
        crate::root::Root {
            fatal: crate::service::Fatal::default(),
        },
        (),
    )
    .await
    .unwrap();
    let restic: Arc<dyn crate::restic::Restic> = Arc::new(crate::kind::table::NoRestic);
    let kinds: Kinds = crate::run::kinds(root.get_cell(), &context, &config, &restic)
        .await
        .unwrap();
    let routes = Arc::new(Routes::new(kinds, Arc::new(Scripts::default())));
    let (services, mut synced) = services(&client, &context, &routes);
    let supervisor = crate::service::Services {
        health: crate::service::Health::default(),
        metrics: context.metrics.clone(),
        fatal: crate::service::Fatal::default(),
        pace: crate::service::Pace::default(),
    };
    let start = Instant::now();
    let handle = crate::service::ServicesHandle::start(root.get_cell(), supervisor, services)
        .await
        .unwrap();
    synced.wait_for(|synced| *synced).await.unwrap();
    let elapsed = start.elapsed();
    handle.stop(Stage::Intake).await;
    assert_eq!(context.world.cron_jobs.len(), OBJECTS);
    // About a second. With a timer for each object it is more than ten.
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
}
