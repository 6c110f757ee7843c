//! `make bench`: figures against goals. One API server whose etcd syncs to disk; the spoke runs as a process of this
//! machine with the rights of its ServiceAccount, so that its memory, its start and each of its requests can be seen.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks to a person"
)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tests::{Bed, Cluster, Options, fleet, progress};

/// Resources in the measurements.
const COUNT: usize = 1000;
/// Requests that the bare client has under way.
const WORKERS: usize = 16;
const ADMIN_PORT: u16 = 18080;
/// Idle is watched for this long.
const IDLE: Duration = Duration::from_secs(60);

/// One line of the result.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: &'static str,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = run(&runtime);
    if let Ok(bed) = Bed::attach("bench") {
        bed.down();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let options = Options {
        clusters: vec!["a".to_owned()],
        fsync: true,
        ..Options::new("bench")
    };
    let bed = Bed::up(&options)?;
    let cluster = bed.cluster("a")?;
    fleet::install_crds(&cluster)?;
    let deploy = bed.workspace.root.join("deploy/spoke");
    for file in ["10-namespace.yaml", "20-rbac.yaml"] {
        cluster.kubectl(&["apply", "-f", &deploy.join(file).to_string_lossy()])?;
    }
    let mut figures = runtime.block_on(controller(&bed, &cluster))?;
    figures.extend(entrypoint(&bed)?);
    let mut text = String::new();
    for figure in &figures {
        let Figure {
            name,
            value,
            unit,
            goal,
        } = figure;
        let _ = writeln!(text, "figure {name} = {:.2} {unit} (goal {goal})", value.abs());
    }
    print!("{text}");
    write_down(&bed, &text)
}

/// The spoke as a process of this machine.
struct Spoke {
    child: Child,
    started: Instant,
}

impl Spoke {
    fn start(bed: &Bed, cluster: &Cluster) -> anyhow::Result<Spoke> {
        let token = cluster.kubectl(&[
            "create",
            "token",
            "-n",
            fleet::SYSTEM,
            "fleet-spoke",
            "--duration=2h",
        ])?;
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
        let file = bed.dir().join("spoke-kubeconfig");
        std::fs::write(&file, kubeconfig.to_string())?;
        let program = bed.workspace.product("release", "fleet-spoke");
        ensure!(
            program.exists(),
            "{} is not built; run `make bench`",
            program.display()
        );
        let log = std::fs::File::create(bed.dir().join("spoke.log"))?;
        let address = format!("127.0.0.1:{ADMIN_PORT}");
        let cache = bed.dir().join("spoke-cache");
        let started = Instant::now();
        let child = Command::new(program)
            .args([
                "--cluster",
                "a",
                "--admin-address",
                &address,
                "--refresh-interval",
                "1h",
                "--identity",
                "bench",
            ])
            .arg("--cache-dir")
            .arg(cache)
            .arg("--restic")
            .arg(bed.workspace.program("restic"))
            .env("KUBECONFIG", file)
            // As in deploy/Dockerfile.spoke.
            .env(
                "_RJEM_MALLOC_CONF",
                "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0",
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Spoke { child, started })
    }

    fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/metrics");
        tests::process::run("curl", &["-sf", &url]).unwrap_or_default()
    }

    /// Sum of the series that begin with a text.
    fn sum(&self, prefix: &str) -> f64 {
        let metrics = self.metrics();
        metrics
            .lines()
            .filter(|l| l.starts_with(prefix))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Resident memory in MiB.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        tests::process::signal(self.child.id(), "TERM");
        self.child.wait()?;
        Ok(())
    }
}

fn backup(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": name, "namespace": namespace },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "source": { "pvc": { "claimName": "data" } } } })
}

fn prepare(bed: &Bed, cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let (key, secret) = bed.servers().s3_credentials();
    let [url, _] = bed.servers().s3_urls();
    let objects = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": namespace },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "nas", "namespace": namespace }, "stringData": {
                "RESTIC_PASSWORD": "bench", "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret } }),
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": "nas", "namespace": namespace },
                "spec": { "repositoryURL": format!("s3:{url}/bench"), "credentialsSecretRef": { "name": "nas" } } }),
    ];
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    cluster.apply(&text.join("\n---\n")).map(drop)
}

async fn controller(bed: &Bed, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let client = cluster.client().await?;
    prepare(bed, cluster, "warm")?;
    let spoke = Spoke::start(bed, cluster)?;
    fleet::wait(
        cluster,
        "warm",
        "resticrepository/nas",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    // Warms both sides up, and shows what is written.
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "warm");
    backups
        .create(
            &PostParams::default(),
            &serde_json::from_value(backup("warm", "sample"))?,
        )
        .await?;
    fleet::wait(
        cluster,
        "warm",
        "resticbackup/sample",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    let sample = Sample::read(&client).await?;
    spoke.stop()?;

    progress(&format!(
        "{COUNT} backups by a bare client with {WORKERS} workers"
    ));
    prepare(bed, cluster, "bare")?;
    let bare = bare(&client, &sample).await?;
    cluster.kubectl(&["delete", "namespace", "bare", "--wait=true", "--timeout=300s"])?;

    progress(&format!("{COUNT} backups by the spoke"));
    prepare(bed, cluster, "load")?;
    let spoke = Spoke::start(bed, cluster)?;
    fleet::wait(
        cluster,
        "load",
        "resticrepository/nas",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    let loaded = load(&client).await?;
    let memory = spoke.memory()?;
    println!("bare client {bare:.1?}, spoke {loaded:.1?}");
    let cron_jobs = cluster
        .kubectl(&["get", "cronjobs", "-n", "load", "-o", "name"])?
        .lines()
        .count();
    ensure!(cron_jobs == COUNT, "{cron_jobs} CronJobs");
    let writes = spoke.sum("fleet_api_writes_total");

    progress(&format!("idle for {IDLE:?}"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = requests(cluster)?;
    tokio::time::sleep(IDLE).await;
    let idle = requests(cluster)?.saturating_sub(before);
    let idle_memory = spoke.memory()?;
    spoke.stop()?;

    progress(&format!("restart with {COUNT} backups"));
    let spoke = Spoke::start(bed, cluster)?;
    let settled = loop {
        if spoke.sum("fleet_turns_total{kind=\"ResticBackup\"") >= (COUNT + 1) as f64 {
            break spoke.started.elapsed();
        }
        ensure!(
            spoke.started.elapsed() < Duration::from_secs(60),
            "the spoke did not settle: {}",
            spoke.metrics()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rewrites = spoke.sum("fleet_api_writes_total");
    spoke.stop()?;
    let figure = |name, value, unit, goal| Figure {
        name,
        value,
        unit,
        goal,
    };
    let per_backup = writes / COUNT as f64;
    Ok(vec![
        figure(
            "create_1000_backups_ratio_to_bare_client",
            loaded.as_secs_f64() / bare.as_secs_f64(),
            "x",
            "<= 1.15",
        ),
        figure("create_1000_backups", loaded.as_secs_f64(), "s", "none"),
        figure("api_writes_per_backup", per_backup, "requests", "none"),
        figure("manager_memory_after_1000_backups", memory, "MiB", "<= 40"),
        figure(
            "manager_memory_idle_with_1000_backups",
            idle_memory,
            "MiB",
            "<= 40",
        ),
        figure(
            "idle_api_requests_per_minute",
            idle as f64 * 60.0 / IDLE.as_secs_f64(),
            "requests",
            "0",
        ),
        figure(
            "restart_settle_time_with_1000_backups",
            settled.as_secs_f64(),
            "s",
            "<= 2",
        ),
        figure("restart_writes_with_1000_backups", rewrites, "requests", "0"),
    ])
}

/// What the spoke writes for one backup.
struct Sample {
    account: ServiceAccount,
    cron_job: CronJob,
    status: Value,
}

impl Sample {
    async fn read(client: &Client) -> anyhow::Result<Sample> {
        let mut account = Api::<ServiceAccount>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        let mut cron_job = Api::<CronJob>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        for meta in [&mut account.metadata, &mut cron_job.metadata] {
            meta.managed_fields = None;
            meta.resource_version = None;
            meta.uid = None;
            meta.creation_timestamp = None;
            meta.generation = None;
            meta.owner_references = None;
            meta.namespace = Some("bare".to_owned());
        }
        cron_job.status = None;
        let backup = Api::<crds::ResticBackup>::namespaced(client.clone(), "warm")
            .get("sample")
            .await?;
        Ok(Sample {
            account,
            cron_job,
            status: serde_json::to_value(backup.status)?,
        })
    }
}

/// The same writes without a controller: create, ServiceAccount, CronJob, status.
async fn bare(client: &Client, sample: &Sample) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let parameters = PatchParams::apply("bare").force();
    stream::iter(0..COUNT)
        .map(|n| {
            let parameters = &parameters;
            async move {
                let name = format!("b{n}");
                let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "bare");
                backups.create(&PostParams::default(), &serde_json::from_value(backup("bare", &name)).map_err(kube::Error::SerdeError)?).await?;
                let child = format!("resticbackup-{name}");
                let mut account = sample.account.clone();
                account.metadata.name = Some(child.clone());
                Api::<ServiceAccount>::namespaced(client.clone(), "bare").patch(&child, parameters, &Patch::Apply(account)).await?;
                let mut cron_job = sample.cron_job.clone();
                cron_job.metadata.name = Some(child.clone());
                Api::<CronJob>::namespaced(client.clone(), "bare").patch(&child, parameters, &Patch::Apply(cron_job)).await?;
                let status = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "status": sample.status });
                backups.patch_status(&name, parameters, &Patch::Apply(status)).await?;
                Ok::<(), kube::Error>(())
            }
        })
        .buffer_unordered(WORKERS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(start.elapsed())
}

/// From the first create until all are Ready, seen through one watch.
async fn load(client: &Client) -> anyhow::Result<Duration> {
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "load");
    let mut events = Box::pin(watcher::watcher(backups.clone(), watcher::Config::default()));
    let start = Instant::now();
    let creating = tokio::spawn({
        let backups = backups.clone();
        async move {
            stream::iter(0..COUNT)
                .map(|n| {
                    let backups = &backups;
                    async move {
                        let object = serde_json::from_value(backup("load", &format!("b{n}")))
                            .map_err(kube::Error::SerdeError)?;
                        backups.create(&PostParams::default(), &object).await
                    }
                })
                .buffer_unordered(WORKERS)
                .try_for_each(|_| async { Ok(()) })
                .await
        }
    });
    let mut ready = std::collections::HashSet::new();
    while ready.len() < COUNT {
        ensure!(
            start.elapsed() < Duration::from_secs(300),
            "{} of {COUNT} were Ready",
            ready.len()
        );
        let event = tokio::time::timeout(Duration::from_secs(60), events.next())
            .await
            .context("no backup became Ready for a minute")?;
        if let Some(Ok(Event::Apply(object) | Event::InitApply(object))) = event
            && object
                .status
                .as_ref()
                .is_some_and(|s| crds::conditions::is_true(&s.conditions, crds::conditions::types::READY))
        {
            ready.extend(object.metadata.name);
        }
    }
    let elapsed = start.elapsed();
    creating.await??;
    Ok(elapsed)
}

/// Requests of the spoke so far, by the API server's own audit log: watches and the leader's lease apart.
fn requests(cluster: &Cluster) -> anyhow::Result<usize> {
    let entries = cluster.audit()?;
    let counts = |entry: &&Value| entry["verb"] != "watch" && entry["objectRef"]["resource"] != "leases";
    Ok(entries.iter().filter(counts).count())
}

/// A backup through the entrypoint by restic alone, in turns on the same data, into fresh repositories.
fn entrypoint(bed: &Bed) -> anyhow::Result<Vec<Figure>> {
    progress("restic through the entrypoint and alone");
    let dir = tempfile::tempdir_in(bed.dir())?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    for n in 0..2000 {
        let seed = format!("{n}");
        let content: Vec<u8> = seed
            .bytes()
            .cycle()
            .take(150_000)
            .zip((0u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56))
            .map(|(a, b)| a ^ b as u8)
            .collect();
        std::fs::write(data.join(seed), content)?;
    }
    let script = bed.workspace.root.join("spoke/src/backup/entrypoint.sh");
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..7 {
        for (which, times) in times.iter_mut().enumerate() {
            let repository: PathBuf = dir.path().join(format!("repository-{round}-{which}"));
            let restic = |program: &str, arguments: &[&str]| -> anyhow::Result<()> {
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .env("RESTIC_REPOSITORY", &repository)
                    .env("RESTIC_PASSWORD", "p")
                    .env("RESTIC_CACHE_DIR", dir.path().join("cache"));
                command
                    .env("TERMINATION_LOG", dir.path().join("log"))
                    .env("RESTIC_PROGRESS_FPS", "0.1");
                command.env(
                    "PATH",
                    format!(
                        "{}:{}",
                        bed.workspace.bin().display(),
                        std::env::var("PATH").unwrap_or_default()
                    ),
                );
                let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
                if !status.success() {
                    bail!("restic ended with {status}");
                }
                Ok(())
            };
            restic("restic", &["init"])?;
            let data = data.to_string_lossy().into_owned();
            let backup = ["backup", "--json", &data];
            let start = Instant::now();
            if which == 0 {
                restic("restic", &backup)?;
            } else {
                let script = script.to_string_lossy().into_owned();
                restic("/bin/busybox", &[&["sh", script.as_str()][..], &backup].concat())?;
            }
            times.push(start.elapsed().as_secs_f64());
            std::fs::remove_dir_all(&repository)?;
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let [alone, through] = &mut times;
    let ratio = median(through) / median(alone);
    Ok(vec![Figure {
        name: "backup_wall_time_ratio_to_restic_alone",
        value: ratio,
        unit: "x",
        goal: "<= 1.02",
    }])
}

fn write_down(bed: &Bed, figures: &str) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory: f64 = memory
        .lines()
        .find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .ok()
        })
        .unwrap_or(f64::NAN);
    let text = format!(
        "# Benchmarks\n\nWritten by `make bench`; figures of one run on one machine. Ratios compare two things measured in the same run.\n\n\
         - machine: {cores} cores, {:.0} GiB\n- Kubernetes {}, one API server, etcd with fsync, on the same cores as everything else\n- restic {}\n- {}\n\n```\n{figures}```\n\n\
         `create_1000_backups_ratio_to_bare_client`: from the first create until all 1,000 ResticBackups are Ready with their CronJobs, by a bare client's time for the same writes (create, ServiceAccount, CronJob, status; 16 workers). \
         `idle_api_requests_per_minute`: by the API server's audit log, watches and the leader's lease apart. \
         `restart_settle_time`: from the start of the process until every actor has taken its turn. \
         `backup_wall_time`: median of seven turns each, 300 MB in 2,000 files; the start of a pod comes on top.\n",
        memory / 1024.0 / 1024.0,
        tests::tools::KUBERNETES,
        tests::tools::RESTIC,
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    );
    std::fs::write(bed.workspace.root.join("docs/benchmarks.md"), text)?;
    Ok(())
}
