//! How late renewals come, seen through a watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::tests::fleet;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::task::JoinHandle;

/// When each holder was renewed last, and the longest time without.
#[derive(Default)]
struct Seen {
    last: HashMap<String, (String, Instant)>,
    longest: Duration,
    renewals: usize,
}

impl Seen {
    fn take(&mut self, name: String, value: String, now: Instant) {
        match self.last.get_mut(&name) {
            Some((known, _)) if *known == value => {}
            Some(last) => {
                self.longest = self.longest.max(now.saturating_duration_since(last.1));
                *last = (value, now);
                self.renewals += 1;
            }
            None => {
                self.last.insert(name, (value, now));
            }
        }
    }
}

/// A watch over what is renewed. Ends with it.
pub struct Renewals {
    seen: Arc<Mutex<Seen>>,
    due: Duration,
    task: JoinHandle<()>,
}

impl Renewals {
    /// Of the leader's Lease, due each 5 s.
    pub fn of_leader(client: &Client) -> Renewals {
        let api: Api<Lease> = Api::namespaced(client.clone(), fleet::SYSTEM);
        let only = watcher::Config::default().fields("metadata.name=fleet-spoke");
        Renewals::watch(api, only, Duration::from_secs(5), |lease| {
            let time = lease.spec.as_ref()?.renew_time.as_ref()?;
            Some(time.0.to_string())
        })
    }

    /// Of the maintenance lease of each pod of retention runs, as the pod sees it.
    pub fn of_pods(client: &Client, namespace: &str, due: Duration) -> Renewals {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let only = watcher::Config::default().labels(crds::names::LABEL_RETENTION);
        Renewals::watch(api, only, due, |pod| {
            pod.annotations().get(crds::names::ANNOTATION_RENEWALS).cloned()
        })
    }

    fn watch<K>(
        api: Api<K>,
        only: watcher::Config,
        due: Duration,
        value: impl Fn(&K) -> Option<String> + Send + 'static,
    ) -> Renewals
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                let mut events = Box::pin(watcher::watcher(api, only));
                while let Some(event) = events.next().await {
                    let Ok(Event::Apply(object) | Event::InitApply(object)) = event else {
                        continue;
                    };
                    if let Some(value) = value(&object) {
                        lock(&seen).take(object.name_any(), value, Instant::now());
                    }
                }
            }
        });
        Renewals { seen, due, task }
    }

    /// Renewals seen so far.
    pub fn count(&self) -> usize {
        lock(&self.seen).renewals
    }

    /// Forgets the longest time; the last renewals stay known.
    pub fn reset(&self) {
        let mut seen = lock(&self.seen);
        (seen.longest, seen.renewals) = (Duration::ZERO, 0);
    }

    /// Seconds by which the latest renewal was late, one that has not come yet included. Not a number if nothing is held.
    pub fn lateness(&self) -> f64 {
        let seen = lock(&self.seen);
        let pending = seen.last.values().map(|(_, at)| at.elapsed());
        let Some(pending) = pending.max() else {
            return f64::NAN;
        };
        let longest = seen.longest.max(pending);
        longest.saturating_sub(self.due).as_secs_f64()
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_is_that_between_two_changes() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut take = |value: &str, seconds| seen.take("a".to_owned(), value.to_owned(), at(seconds));
        take("1", 0);
        take("2", 5);
        // Changed, and not renewed.
        take("2", 9);
        take("3", 12);
        assert_eq!((seen.longest, seen.renewals), (Duration::from_secs(7), 2));
    }
}
