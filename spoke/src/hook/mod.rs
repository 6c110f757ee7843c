//! What runs in the containers of hooks: `fleet-spoke hook before`, `after` or `owed`. Each reports in its termination
//! message. SIGTERM ends none of them: a hook that began runs to its end, within its time limit.

mod exec;
mod job;
mod shared;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::hooks::{DIR, Hook, PLAN_VARIABLE, POD_NAME_VARIABLE, POD_UID_VARIABLE, Plan};
use crate::runs::hooks::{HookReport, How, TEXT_MAX, Told};
use shared::{Begun, Shared};

/// Flags of a hook container.
#[derive(Clone, Debug, Args)]
pub struct HookConfig {
    /// The hooks, as JSON.
    #[arg(long, env = PLAN_VARIABLE)]
    pub plan: String,

    /// The pod that this runs in.
    #[arg(long, env = POD_NAME_VARIABLE)]
    pub pod_name: String,
    #[arg(long, env = POD_UID_VARIABLE)]
    pub pod_uid: String,

    /// Folder that the containers of the pod share.
    #[arg(long, default_value = DIR)]
    pub dir: PathBuf,

    /// Where the result goes.
    #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Flags of a container that runs what a run owes.
#[derive(Clone, Debug, Args)]
pub struct OwedConfig {
    #[command(flatten)]
    pub hook: HookConfig,

    /// Hooks to run, by their names in the spec.
    #[arg(long = "hook", required = true)]
    pub hooks: Vec<String>,

    /// Not before this second since 1970.
    #[arg(long)]
    pub not_before: Option<i64>,
}

/// A line for the pod's log.
fn log(line: &str) {
    use std::io::Write as _;
    // Nobody is left to be told when the log is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs the hook before the run. Another exit code than 0 keeps restic from starting.
pub async fn before(config: HookConfig) -> ExitCode {
    let mut report = HookReport::default();
    let told = match Runner::new(&config) {
        Ok(runner) => runner.before(&config).await,
        Err(text) => told("", How::NotBegun, text),
    };
    let well = told.how == How::Succeeded;
    report.hooks.push(told);
    tell(&config, &report);
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Waits until restic has ended, or the kubelet ends the container, after all others; and runs what has to be run then.
pub async fn after(config: HookConfig) -> ExitCode {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return ExitCode::FAILURE;
    };
    let shared = Shared::new(&config.dir);
    let told_to_end = tokio::select! {
        _ = terminate.recv() => true,
        () = shared.wait_for_outcome() => false,
    };
    // Killed after its work, it was started again.
    if let Some(done) = shared.done() {
        tell(&config, &done);
    } else {
        let Some(report) = run_after(&config, &shared).await else {
            return ExitCode::FAILURE;
        };
        shared.finish(&report);
    }
    // Ended by itself, it would be started again.
    if !told_to_end {
        terminate.recv().await;
    }
    ExitCode::SUCCESS
}

/// `None` where nothing can be run.
async fn run_after(config: &HookConfig, shared: &Shared) -> Option<HookReport> {
    let mut report = HookReport::default();
    let runner = match Runner::new(config) {
        Ok(runner) => runner,
        Err(text) => {
            log(&text);
            return None;
        }
    };
    let names = runner.plan.names();
    let began = match names.before.and(runner.plan.before.as_ref()) {
        None => true,
        Some(_) => match shared.wait_for_before().await {
            Begun::No => false,
            Begun::Ended => true,
            Begun::Until(time) => {
                // Its command may still be on its way to freeze the application.
                sleep(time).await;
                true
            }
        },
    };
    if let Some(name) = names.after {
        let told = if began {
            runner.patient(name).await
        } else {
            told(name, How::NotNeeded, "the hook before did not begin".to_owned())
        };
        report.hooks.push(told);
        tell(config, &report);
    }
    if let Some(name) = names.failure.filter(|_| !shared.succeeded()) {
        report.hooks.push(runner.patient(name).await);
    }
    tell(config, &report);
    Some(report)
}

/// Runs hooks of a run that ended too early to run them itself.
pub async fn owed(config: OwedConfig) -> ExitCode {
    // Registered, SIGTERM does not end the process.
    let _terminate = signal(SignalKind::terminate());
    let runner = match Runner::new(&config.hook) {
        Ok(runner) => runner,
        Err(text) => {
            log(&text);
            return ExitCode::FAILURE;
        }
    };
    let now = jiff::Timestamp::now().as_second();
    let wait = config.not_before.unwrap_or_default().saturating_sub(now);
    sleep(Duration::from_secs(u64::try_from(wait).unwrap_or_default())).await;
    let mut report = HookReport::default();
    for name in &config.hooks {
        report.hooks.push(runner.patient(name).await);
        tell(&config.hook, &report);
    }
    use crate::runs::Report as _;
    if report.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn told(name: &str, how: How, message: String) -> Told {
    Told {
        name: name.to_owned(),
        how,
        millis: 0,
        message,
    }
}

fn tell(config: &HookConfig, report: &HookReport) {
    let text = serde_json::to_string(report).unwrap_or_default();
    log(&text);
    if let Err(error) = std::fs::write(&config.termination_log, text) {
        log(&format!("cannot write the termination message: {error}"));
    }
}

/// Runs hooks by the Kubernetes API.
struct Runner {
    client: Client,
    namespace: String,
    plan: Plan,
    pod_name: String,
    pod_uid: String,
}

/// What came of one attempt.
enum Attempt {
    Ended(How, String),
    /// Nothing was begun: another attempt may help.
    NotBegun(String),
}

impl Runner {
    fn new(config: &HookConfig) -> Result<Runner, String> {
        let plan = Plan::parse(&config.plan)
            .ok_or("the hooks cannot be read: another version of the operator wrote them")?;
        let cluster = Config::incluster().map_err(|error| format!("no access to the API server: {error}"))?;
        let namespace = cluster.default_namespace.clone();
        let client =
            Client::try_from(cluster).map_err(|error| format!("no access to the API server: {error}"))?;
        Ok(Runner {
            client,
            namespace,
            plan,
            pod_name: config.pod_name.clone(),
            pod_uid: config.pod_uid.clone(),
        })
    }

    async fn before(&self, config: &HookConfig) -> Told {
        // Registered, SIGTERM does not end the process: a command that was started runs to its end.
        let _terminate = signal(SignalKind::terminate());
        let Some((name, hook)) = self.plan.names().before.zip(self.plan.before.as_ref()) else {
            return told("", How::NotBegun, "there is no such hook".to_owned());
        };
        let mut shared = Shared::new(&config.dir);
        if let Err(error) = shared.hold() {
            return told(name, How::NotBegun, format!("{}: {error}", config.dir.display()));
        }
        let start = Instant::now();
        let attempt = self
            .attempt(name, hook, hook.limit(), || shared.begin(hook.longest()))
            .await;
        let (how, message) = match attempt {
            Attempt::Ended(how, message) => (how, message),
            Attempt::NotBegun(message) => (How::NotBegun, message),
        };
        shared.end(how);
        timed(told(name, how, message), start)
    }

    /// Runs a hook that has to be run: what keeps it from beginning may pass within its time limit.
    async fn patient(&self, name: &str) -> Told {
        let Some(hook) = self.plan.hook(name) else {
            return told(name, How::NotNeeded, "there is no such hook".to_owned());
        };
        let start = Instant::now();
        loop {
            let left = hook.limit().saturating_sub(start.elapsed());
            let attempt = self.attempt(name, hook, left, || Ok(())).await;
            let (how, message) = match attempt {
                Attempt::Ended(how, message) => (how, message),
                Attempt::NotBegun(message) => {
                    log(&format!("{name}: {message}"));
                    if start.elapsed() + Duration::from_secs(1) < hook.limit() {
                        sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                    (How::NotBegun, message)
                }
            };
            return timed(told(name, how, message), start);
        }
    }

    /// `begin` is called before anything may begin.
    async fn attempt(
        &self,
        name: &str,
        hook: &Hook,
        limit: Duration,
        mut begin: impl FnMut() -> std::io::Result<()>,
    ) -> Attempt {
        let start = || begin().map_err(|error| error.to_string());
        match hook {
            Hook::Exec {
                selector,
                container,
                command,
                ..
            } => {
                self.exec(selector, container.as_deref(), command, limit, start)
                    .await
            }
            Hook::Job { template, .. } => {
                let patience = hook.longest().saturating_sub(hook.limit());
                self.job(name, template, (limit, patience), start).await
            }
        }
    }
}

fn timed(mut told: Told, start: Instant) -> Told {
    told.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let text = told.message.trim();
    let over = text.chars().count().saturating_sub(TEXT_MAX);
    // What went wrong stands at the end.
    let tail: String = text.chars().skip(over).collect();
    told.message = if over > 0 { format!("…{tail}") } else { tail };
    told
}
