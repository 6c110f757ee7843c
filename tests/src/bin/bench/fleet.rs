//! What a hub with many clusters costs its viewers, its spokes and its machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::v1::watch_event::Body;
use proto::v1::{Collection, Filter};
use tests::load::{Fleet, Hub, Probe, Shape, Viewer, percentile, viewer};
use tests::progress;
use tests::tools::Workspace;

use crate::report::{Figure, Goal, Report};
use crate::{SPOKES, Settings};

/// Where the hub listens for spokes; viewers on the next port.
const PORT: u16 = 18_453;
/// Questions of each kind.
const QUESTIONS: usize = 200;
/// Changes that are watched.
const CHANGES: usize = 100;
/// Viewers of everything.
const VIEWERS: usize = 3;
/// How long an idle hub is looked at.
const IDLE: Duration = Duration::from_secs(60);
/// How long a viewer asks without a pause.
const BUSY: Duration = Duration::from_secs(10);
/// jemalloc gives memory back after so long.
const DECAY: Duration = Duration::from_secs(12);
/// Longest time until a fleet is complete, and as much again for so many clusters.
const COMPLETE: Duration = Duration::from_secs(300);
const COMPLETE_CLUSTERS: u32 = 1_000;

const MIB: f64 = 1024.0 * 1024.0;

struct Bench<'a> {
    hub: Hub,
    fleet: Fleet,
    report: &'a mut Report,
}

/// The whole part.
pub async fn fleet(workspace: &Workspace, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let product = || workspace.product(&settings.profile, "fleet-hub");
    let program = settings.hub.clone().unwrap_or_else(product);
    let dir = tempfile::tempdir()?;
    let mut hub = Hub::prepare(&program, dir.path(), PORT)?;
    viewer::certificate(dir.path())?;
    hub.start().await?;
    let shape = Shape {
        clusters: settings.spokes,
        resources: settings.resources,
        made: jiff::Timestamp::now().as_millisecond(),
    };
    progress(&format!("{} spokes connect", shape.clusters));
    let begin = Instant::now();
    let fleet = Fleet::start(shape, dir.path(), hub.link)?;
    let mut bench = Bench { hub, fleet, report };
    bench.connect(begin).await?;
    bench.idle().await?;
    bench.questions().await?;
    bench.watches().await?;
    bench.while_asked().await?;
    bench.restart().await
}

impl Bench<'_> {
    fn add(&mut self, name: &'static str, value: f64, unit: &'static str, goal: Goal) -> anyhow::Result<()> {
        // The goals are about a fleet of that size.
        let goal = if self.fleet.shape.clusters == SPOKES {
            goal
        } else {
            Goal::Open
        };
        self.report.add([Figure {
            name,
            value,
            unit,
            goal,
        }])
    }

    fn patience(&self) -> Duration {
        let times =
            u32::try_from(self.fleet.shape.clusters).map_or(u32::MAX, |n| n.div_ceil(COMPLETE_CLUSTERS));
        COMPLETE * times
    }

    async fn viewer(&self) -> anyhow::Result<Viewer> {
        Viewer::dial(self.hub.dir(), self.hub.view).await
    }

    /// Until every cluster is fresh and every backup is known. The most backups that were called stale meanwhile: the cluster of
    /// each was known and connected, and has sent its heartbeats.
    async fn complete(&self) -> anyhow::Result<u64> {
        let viewer = self.viewer().await?;
        let shape = self.fleet.shape;
        let (clusters, backups) = (shape.clusters as u64, (shape.clusters * shape.backups()) as u64);
        let end = Instant::now() + self.patience();
        let mut stale = 0;
        loop {
            let status = viewer.status().await?;
            stale = stale.max(status.backups_by_state.get("stale").copied().unwrap_or_default());
            if status.clusters >= clusters && status.clusters_stale == 0 && status.backups == backups {
                return Ok(stale);
            }
            if Instant::now() > end {
                bail!(
                    "{} of {clusters} clusters, {} of {backups} backups",
                    status.clusters,
                    status.backups
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(&mut self, begin: Instant) -> anyhow::Result<()> {
        let stale = self.complete().await?;
        let cpu = self.hub.cpu()?;
        self.add("fleet_connect", begin.elapsed().as_secs_f64(), "s", Goal::Open)?;
        self.add("fleet_connect_cpu", cpu, "s", Goal::Open)?;
        self.add("fleet_connect_stale_backups", stale as f64, "", Goal::AtMost(0.0))
    }

    /// What the hub uses when nothing happens but heartbeats.
    async fn idle(&mut self) -> anyhow::Result<()> {
        progress("until the store is written");
        let mut before = (0, f64::MAX);
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = (self.hub.store_bytes(), self.hub.cpu()?);
            // Less than a tenth of a core: nothing is written behind any more.
            if now.0 == before.0 && now.1 - before.1 < 0.3 {
                break;
            }
            before = now;
        }
        tokio::time::sleep(DECAY).await;
        let (begin, cpu) = (Instant::now(), self.hub.cpu()?);
        tokio::time::sleep(IDLE).await;
        let used = (self.hub.cpu()? - cpu) / begin.elapsed().as_secs_f64() * 100.0;
        let memory = self.hub.memory()?;
        self.add("fleet_hub_memory", memory, "MiB", Goal::AtMost(160.0))?;
        self.add("fleet_idle_cpu", used, "% of a core", Goal::AtMost(0.5))?;
        let store = self.hub.store_bytes() as f64 / MIB;
        self.add("fleet_store", store, "MiB", Goal::Open)
    }

    /// The first answer to a viewer that dials.
    async fn cold(&mut self) -> anyhow::Result<()> {
        let mut cold = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            self.viewer().await?.status().await?;
            cold.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        self.add(
            "fleet_first_verdict_cold_p99",
            percentile(&cold, 99),
            "ms",
            Goal::AtMost(1000.0),
        )
    }

    /// What viewers ask.
    async fn questions(&mut self) -> anyhow::Result<()> {
        progress("questions of viewers");
        self.cold().await?;
        let viewer = self.viewer().await?;
        let times = viewer
            .times(QUESTIONS, async |viewer| viewer.status().await)
            .await?;
        self.both(
            ("fleet_status_p50", "fleet_status_p99"),
            &times,
            Goal::AtMost(5.0),
        )?;
        let ask = async |collection: Collection, filter: &Filter, sort: &str| {
            let ask = async |viewer: &Viewer| viewer.list(collection, filter.clone(), sort).await;
            viewer.times(QUESTIONS, ask).await
        };
        let none = Filter::default();
        let times = ask(Collection::Backups, &none, "").await?;
        let names = ("fleet_backups_page_p50", "fleet_backups_page_p99");
        self.both(names, &times, Goal::AtMost(20.0))?;
        let times = ask(Collection::Clusters, &none, "").await?;
        self.both(
            ("fleet_clusters_page_p50", "fleet_clusters_page_p99"),
            &times,
            Goal::AtMost(10.0),
        )?;
        let text = Filter {
            text: "team-07".to_owned(),
            ..Filter::default()
        };
        let times = ask(Collection::Backups, &text, "").await?;
        self.both(
            ("fleet_filter_p50", "fleet_filter_p99"),
            &times,
            Goal::AtMost(200.0),
        )?;
        let failed = Filter {
            states: vec!["failed".to_owned()],
            ..Filter::default()
        };
        let times = ask(Collection::Backups, &failed, "").await?;
        self.both(("fleet_failed_p50", "fleet_failed_p99"), &times, Goal::Open)?;
        let times = ask(Collection::Backups, &none, "-last").await?;
        self.both(("fleet_sorted_p50", "fleet_sorted_p99"), &times, Goal::Open)?;
        let times = ask(Collection::Repositories, &none, "").await?;
        self.both(
            ("fleet_repositories_page_p50", "fleet_repositories_page_p99"),
            &times,
            Goal::Open,
        )
    }

    fn both(&mut self, names: (&'static str, &'static str), times: &[f64], goal: Goal) -> anyhow::Result<()> {
        self.add(names.0, percentile(times, 50), "ms", Goal::Open)?;
        self.add(names.1, percentile(times, 99), "ms", goal)
    }

    /// Watches of all backups.
    async fn watches(&mut self) -> anyhow::Result<()> {
        progress("watches");
        let before = self.hub.memory()?;
        let (mut open, mut times) = (Vec::new(), Vec::new());
        for _ in 0..VIEWERS {
            let start = Instant::now();
            let viewer = self.viewer().await?;
            let (events, rows) = viewer.watch(Collection::Backups).await?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            let wanted = self.fleet.shape.clusters * self.fleet.shape.backups();
            anyhow::ensure!(rows == wanted, "a watch of {rows} rows of {wanted}");
            open.push((viewer, events));
        }
        self.add(
            "fleet_watch_to_bookmark_p50",
            percentile(&times, 50),
            "ms",
            Goal::Open,
        )?;
        // The others read as well: one that does not would hold what it was shown.
        let (_viewer, mut events) = open.pop().context("no watch")?;
        let readers = open.into_iter().map(|(viewer, mut events)| {
            tokio::spawn(async move {
                let _viewer = viewer;
                while let Ok(Some(_)) = events.message().await {}
            })
        });
        let readers: Vec<_> = readers.collect();
        let mut times = Vec::new();
        for n in 0..CHANGES {
            let cluster = n * 37 % self.fleet.shape.clusters;
            let key = format!("{}/", tests::load::shape::name(cluster));
            let start = Instant::now();
            self.fleet.change(cluster, n % self.fleet.shape.backups()).await?;
            loop {
                let event = events.message().await?.context("the hub ended the watch")?;
                if matches!(event.body, Some(Body::Upsert(row)) if row.key.starts_with(&key)) {
                    break;
                }
            }
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        let names = ("fleet_change_on_screen_p50", "fleet_change_on_screen_p99");
        self.both(names, &times, Goal::AtMost(1000.0))?;
        let waits = tokio::time::sleep(DECAY);
        tokio::pin!(waits);
        loop {
            tokio::select! {
                () = &mut waits => break,
                event = events.message() => { event?.context("the hub ended the watch")?; }
            }
        }
        let each = (self.hub.memory()? - before) / VIEWERS as f64;
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        self.add("fleet_viewer_memory", each, "MiB", Goal::AtMost(2.0))
    }

    /// What spokes wait while a viewer asks without a pause.
    async fn while_asked(&mut self) -> anyhow::Result<()> {
        progress("answers to spokes");
        let probe = Probe::start(self.hub.dir(), self.hub.link).await?;
        tokio::time::sleep(BUSY / 2).await;
        let idle = probe.take();
        let names = ("fleet_spoke_answer_idle_p50", "fleet_spoke_answer_idle_p99");
        self.both(names, &idle, Goal::Open)?;
        let (viewer, stop) = (self.viewer().await?, Arc::new(AtomicBool::new(false)));
        let asking = tokio::spawn({
            let stop = stop.clone();
            async move {
                let text = Filter {
                    text: "team-07".to_owned(),
                    ..Filter::default()
                };
                while !stop.load(Ordering::Relaxed) {
                    viewer.status().await?;
                    viewer.list(Collection::Backups, Filter::default(), "").await?;
                    viewer.list(Collection::Backups, text.clone(), "").await?;
                    viewer.list(Collection::Clusters, Filter::default(), "").await?;
                }
                anyhow::Ok(())
            }
        });
        tokio::time::sleep(BUSY).await;
        let busy = probe.take();
        stop.store(true, Ordering::Relaxed);
        asking.await??;
        probe.end().await?;
        let names = (
            "fleet_spoke_answer_while_asked_p50",
            "fleet_spoke_answer_while_asked_p99",
        );
        self.both(names, &busy, Goal::AtMost(20.0))
    }

    /// A stop and a start with all spokes connected.
    async fn restart(&mut self) -> anyhow::Result<()> {
        progress("a restart");
        let sent = &self.fleet.counts.sent;
        let (before, inventories) = (
            sent.load(Ordering::Relaxed),
            self.fleet.counts.inventories.load(Ordering::Relaxed),
        );
        let stop = Instant::now();
        self.hub.stop().await?;
        let stopped = stop.elapsed().as_secs_f64();
        self.fleet.counts.mark();
        let begin = Instant::now();
        self.hub.start().await?;
        self.viewer().await?.status().await?;
        let serves = begin.elapsed().as_secs_f64();
        let end = Instant::now() + self.patience();
        while self.fleet.counts.complete.load(Ordering::Relaxed) < self.fleet.shape.clusters {
            if Instant::now() > end {
                bail!("not all spokes came back");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let back = self.fleet.counts.since(begin);
        let bytes = self.fleet.counts.sent.load(Ordering::Relaxed) - before;
        let again = self.fleet.counts.inventories.load(Ordering::Relaxed) - inventories;
        self.add("fleet_restart_stop", stopped, "s", Goal::Open)?;
        self.add("fleet_restart_serves", serves, "s", Goal::AtMost(0.5))?;
        self.add("fleet_restart_back_p50", percentile(&back, 50), "s", Goal::Open)?;
        self.add(
            "fleet_restart_all_back",
            percentile(&back, 100),
            "s",
            Goal::AtMost(5.0),
        )?;
        self.add(
            "fleet_restart_inventories_sent_again",
            again as f64,
            "",
            Goal::AtMost(0.0),
        )?;
        self.add(
            "fleet_restart_bytes",
            bytes as f64 / MIB,
            "MiB",
            Goal::AtMost(2.0),
        )?;
        // Without what the first connect has left behind.
        tokio::time::sleep(DECAY * 2).await;
        let memory = self.hub.memory()?;
        self.add("fleet_restart_memory", memory, "MiB", Goal::Open)
    }
}
