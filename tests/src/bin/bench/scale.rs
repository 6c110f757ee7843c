//! Ten thousand backups that have run once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::CronJob;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::json;
use tests::proxy::{Action, Rule};
use tests::{Bed, Cluster, fleet, progress};

use crate::audit::Mark;
use crate::load::{self, SOON, Sample};
use crate::renewals::Renewals;
use crate::report::{Figure, Goal, Report};
use crate::runs;
use crate::spoke::{self, LEASE_TTL, Spoke};
use crate::{Settings, fresh};

/// So long nothing may happen before idle begins: a status is looked at again after its pod went.
const QUIET: Duration = Duration::from_secs(45);
/// A maintenance lease is renewed five times in its life.
const RENEWAL: Duration = Duration::from_secs(LEASE_TTL / 5);

fn figure(name: &'static str, value: f64, unit: &'static str, goal: Goal) -> Figure {
    Figure {
        name,
        value,
        unit,
        goal,
    }
}

/// One cluster, and what is measured there.
struct Scale<'a> {
    bed: &'a Bed,
    cluster: Cluster,
    client: Client,
    settings: &'a Settings,
}

/// What ten thousand backups cost. Makes the bed anew twice: for the bare client, and for the spoke.
pub async fn scale(bed: &Bed, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let bed = fresh(bed)?;
    let (sample, bare) = Scale::of(&bed, settings).await?.bare().await?;
    let bed = fresh(&bed)?;
    let scale = Scale::of(&bed, settings).await?;
    let spoke = scale.create(&sample, bare, report).await?;
    let peak = scale.idle(spoke, report).await?;
    scale.renewals(peak, report).await
}

impl<'a> Scale<'a> {
    async fn of(bed: &'a Bed, settings: &'a Settings) -> anyhow::Result<Scale<'a>> {
        let cluster = bed.cluster("a")?;
        load::install(bed, &cluster)?;
        Ok(Scale {
            bed,
            client: cluster.client().await?,
            cluster,
            settings,
        })
    }

    fn profile(&self) -> &str {
        &self.settings.profile
    }

    /// What the spoke writes for one, and how long a bare client needs to write it for all.
    async fn bare(&self) -> anyhow::Result<(Sample, Duration)> {
        let count = self.settings.many;
        let spoke = load::ready(self.bed, &self.cluster, self.profile(), "warm")?;
        let sample = Sample::make(&self.cluster, &self.client).await?;
        spoke.stop()?;
        progress(&format!("{count} backups and a run of each by a bare client"));
        load::prepare(self.bed, &self.cluster, "bare")?;
        let (created, owners) = load::bare(&self.client, &sample, count).await?;
        let start = Instant::now();
        runs::all(&self.client, "bare", &sample, &owners).await?;
        Ok((sample, created + start.elapsed()))
    }

    async fn create(&self, sample: &Sample, bare: Duration, report: &mut Report) -> anyhow::Result<Spoke> {
        let count = self.settings.many;
        progress(&format!("{count} backups by the spoke"));
        let spoke = load::ready(self.bed, &self.cluster, self.profile(), "load")?;
        let created = load::load(&self.client, count).await?;
        let owners = self.owners().await?;
        ensure!(owners.len() == count, "{} CronJobs", owners.len());
        progress(&format!("a run of each of {count} backups"));
        let ran = runs::by_spoke(&self.client, sample, &owners).await?;
        let ratio = (created + ran).as_secs_f64() / bare.as_secs_f64();
        report.add([
            figure(
                "create_and_run_10000_backups_ratio_to_bare_client",
                ratio,
                "x",
                Goal::AtMost(1.3),
            ),
            figure("create_10000_backups", created.as_secs_f64(), "s", Goal::Open),
            figure("run_10000_backups", ran.as_secs_f64(), "s", Goal::Open),
            figure("bare_client_10000_backups", bare.as_secs_f64(), "s", Goal::Open),
            figure(
                "manager_memory_peak_load_10000_backups",
                spoke.memory("VmHWM")?,
                "MiB",
                Goal::AtMost(120.0),
            ),
        ])?;
        Ok(spoke)
    }

    /// uid of the CronJob of each backup.
    async fn owners(&self) -> anyhow::Result<HashMap<String, String>> {
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), "load");
        let mut owners = HashMap::new();
        let mut page = ListParams::default().limit(500);
        loop {
            let list = api.list_metadata(&page).await?;
            for item in list.items {
                let (name, uid) = (item.metadata.name, item.metadata.uid);
                let name = name.unwrap_or_default();
                let backup = name.strip_prefix("resticbackup-").unwrap_or(&name);
                owners.insert(backup.to_owned(), uid.unwrap_or_default());
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(owners),
            }
        }
    }

    /// Five minutes in which nothing changes. Ends the spoke, and returns its highest memory.
    async fn idle(&self, spoke: Spoke, report: &mut Report) -> anyhow::Result<f64> {
        progress("until the spoke is idle");
        let most = load::limit(self.settings.many);
        spoke::until_quiet(&spoke, self.settings.many, QUIET, most).await?;
        let idle = Duration::from_secs(self.settings.idle);
        progress(&format!("idle for {idle:?}"));
        let mark = Mark::now(&self.cluster)?;
        let (start, before) = (Instant::now(), spoke.cpu()?);
        tokio::time::sleep(idle).await;
        let share = (spoke.cpu()? - before) / start.elapsed().as_secs_f64() * 100.0;
        let requests = mark.requests()?.all as f64 * 60.0 / start.elapsed().as_secs_f64();
        report.add([
            figure("idle_cpu_10000_backups", share, "% of a core", Goal::Below(0.5)),
            figure(
                "idle_api_requests_per_minute_10000_backups",
                requests,
                "requests",
                Goal::AtMost(0.0),
            ),
            figure(
                "manager_memory_idle_10000_backups",
                spoke.memory("VmRSS")?,
                "MiB",
                Goal::AtMost(120.0),
            ),
        ])?;
        let peak = spoke.memory("VmHWM")?;
        spoke.stop()?;
        Ok(peak)
    }

    /// A restart and a rewrite of all CronJobs, and the leases meanwhile.
    async fn renewals(&self, peak: f64, report: &mut Report) -> anyhow::Result<()> {
        // First without anything else that the spoke would write for.
        let mark = Mark::now(&self.cluster)?;
        let (spoke, settled) = self.restart().await?;
        let writes = mark.requests()?.writes as f64;
        report.add([
            figure(
                "restart_settle_time_10000_backups",
                settled.as_secs_f64(),
                "s",
                Goal::AtMost(10.0),
            ),
            figure(
                "restart_writes_10000_backups",
                writes,
                "requests",
                Goal::AtMost(0.0),
            ),
        ])?;
        let peak = peak.max(spoke.memory("VmHWM")?);
        let leader = Renewals::of_leader(&self.client);
        let pod = Renewals::of_pods(&self.client, "held", RENEWAL);
        self.hold(&pod).await?;

        progress("restart while a maintenance lease is held");
        let both = |leader: f64, pod: f64, names: [&'static str; 2]| {
            let goal = Goal::AtMost(30.0);
            [
                figure(names[0], leader, "s", goal),
                figure(names[1], pod, "s", goal),
            ]
        };
        [&leader, &pod].iter().for_each(|r| r.reset());
        spoke.stop()?;
        let (spoke, _) = self.restart().await?;
        until_renewed(&leader, &pod).await?;
        report.add(both(
            leader.lateness(),
            pod.lateness(),
            [
                "leader_renewal_lateness_restart_10000_backups",
                "maintenance_renewal_lateness_restart_10000_backups",
            ],
        ))?;
        [&leader, &pod].iter().for_each(|r| r.reset());
        let taken = self.rewrite(&spoke).await?;
        until_renewed(&leader, &pod).await?;
        report.add(both(
            leader.lateness(),
            pod.lateness(),
            [
                "leader_renewal_lateness_rewrite_10000_backups",
                "maintenance_renewal_lateness_rewrite_10000_backups",
            ],
        ))?;
        let peak = peak.max(spoke.memory("VmHWM")?);
        report.add([
            figure("rewrite_10000_cron_jobs", taken.as_secs_f64(), "s", Goal::Open),
            figure(
                "manager_memory_peak_10000_backups",
                peak,
                "MiB",
                Goal::AtMost(120.0),
            ),
        ])?;
        self.bed.servers().s3_proxy().set(&[])?;
        spoke.stop()
    }

    async fn restart(&self) -> anyhow::Result<(Spoke, Duration)> {
        progress(&format!("restart with {} backups", self.settings.many));
        let spoke = Spoke::start(self.bed, &self.cluster, self.profile())?;
        let most = load::limit(self.settings.many);
        let settled = spoke::until_quiet(&spoke, self.settings.many, Duration::from_secs(5), most).await?;
        Ok((spoke, settled))
    }

    /// A retention run whose storage does not answer its pod: its lease has to be renewed for as long as that is so. Only
    /// the listing is held up, for which a run waits ten minutes; it gives up much sooner on a repository that does not open.
    async fn hold(&self, pod: &Renewals) -> anyhow::Result<()> {
        progress("a retention run that does not end");
        let [url, _] = self.bed.servers().faulty_s3_urls();
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "held" } });
        let repository = load::repository(self.bed, "held", "nas", &format!("{url}/held"));
        load::apply(&self.cluster, &[&[namespace], &repository[..]].concat())?;
        fleet::wait(
            &self.cluster,
            "held",
            "resticrepository/nas",
            "condition=Ready",
            SOON,
        )?;
        let silent = Rule {
            client: Some(self.cluster.pod_prefix()),
            ..Rule::each("GET", Action::pass().before(Duration::from_secs(3600))).containing("snapshots")
        };
        self.bed.servers().s3_proxy().set(&[silent])?;
        let rules = json!([{ "selector": { "tags": ["bench"] }, "retention": { "keepLast": 1 } }]);
        let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "held", "namespace": "held" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "policies": rules } });
        load::apply(&self.cluster, &[policy])?;
        fleet::wait(
            &self.cluster,
            "held",
            "globalretentionpolicy/held",
            "condition=Ready",
            SOON,
        )?;
        let from = "--from=cronjob/globalretention-held";
        self.cluster
            .kubectl(&["create", "job", "-n", "held", "held", from])?;
        until("renewals of the maintenance lease", || pod.count() >= 2).await
    }

    /// A change of the repository that every CronJob carries.
    async fn rewrite(&self, spoke: &Spoke) -> anyhow::Result<Duration> {
        let count = self.settings.many as f64;
        let written = || spoke.sum("fleet_api_writes_total{kind=\"CronJob\"");
        let before = written();
        progress(&format!("{count} CronJobs are written anew"));
        let start = Instant::now();
        let patch = json!({ "spec": { "cache": { "enabled": false } } }).to_string();
        let patch = ["--type=merge", "-p", patch.as_str()];
        let repository = ["patch", "-n", "load", "resticrepository/nas"];
        self.cluster.kubectl(&[&repository[..], &patch].concat())?;
        while written() - before < count {
            ensure!(
                start.elapsed() < load::limit(self.settings.many),
                "{} of {count} CronJobs were written",
                written() - before
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let taken = start.elapsed();
        let last = format!("cronjob/resticbackup-b{}", self.settings.many - 1);
        let path = "-o=jsonpath={.spec.jobTemplate.spec.template.spec.containers[0].args}";
        let arguments = self.cluster.kubectl(&["get", "-n", "load", &last, path])?;
        ensure!(arguments.contains("--no-cache"), "{last} has {arguments}");
        Ok(taken)
    }
}

/// Waits until both have been renewed after what happened.
async fn until_renewed(leader: &Renewals, pod: &Renewals) -> anyhow::Result<()> {
    until("the next renewals", || leader.count() >= 2 && pod.count() >= 2).await
}

async fn until(what: &str, reached: impl Fn() -> bool) -> anyhow::Result<()> {
    tests::wait_until(what, Duration::from_secs(240), || async {
        Ok(reached().then_some(()))
    })
    .await
    .with_context(|| format!("{what} did not come"))
}
