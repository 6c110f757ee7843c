//! The person's own kubectl: it has the rights and the ways to log in that the person has.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::arguments::KubeArguments;
use crate::failure::Failure;

/// kubectl in a context.
#[derive(Clone, Debug)]
pub struct Kubectl {
    flags: Vec<String>,
    /// Longest time of one call; none for what waits by itself.
    limit: Option<Duration>,
}

impl Kubectl {
    /// As the person chose, or in the present context.
    #[must_use]
    pub fn new(kube: &KubeArguments) -> Kubectl {
        let mut flags = Vec::new();
        if let Some(file) = &kube.kubeconfig {
            flags.extend(["--kubeconfig".to_owned(), file.display().to_string()]);
        }
        if let Some(context) = &kube.kube_context {
            flags.extend(["--context".to_owned(), context.clone()]);
        }
        Kubectl { flags, limit: None }
    }

    /// No call takes longer than this.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Kubectl {
        let seconds = limit.as_secs().max(1);
        self.flags.push(format!("--request-timeout={seconds}s"));
        self.limit = Some(limit);
        self
    }

    /// What it prints.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        self.start(arguments, None).await
    }

    /// The same; it reads a text.
    ///
    /// # Errors
    /// As above.
    pub async fn give(&self, arguments: &[&str], text: &str) -> Result<String, Failure> {
        self.start(arguments, Some(text)).await
    }

    /// The same; it reads a file.
    ///
    /// # Errors
    /// As above, and when the file cannot be read.
    pub async fn attach(&self, arguments: &[&str], file: &Path) -> Result<String, Failure> {
        let opened = std::fs::File::open(file).map_err(|error| Failure::File {
            path: file.display().to_string(),
            error,
        })?;
        let child = self.spawn(arguments, Stdio::from(opened))?;
        Self::ended(child, arguments).await
    }

    /// What it prints, as JSON.
    ///
    /// # Errors
    /// As above, and when it is none.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let text = self.run(arguments).await?;
        parse(&text)
    }

    async fn start(&self, arguments: &[&str], text: Option<&str>) -> Result<String, Failure> {
        let work = self.work(arguments, text);
        match self.limit {
            None => work.await,
            // The child is killed when its future is dropped.
            Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| {
                let done = arguments.first().copied().unwrap_or_default();
                Err(Failure::Kubectl(format!(
                    "{done}: no answer within {} s",
                    limit.as_secs()
                )))
            }),
        }
    }

    async fn work(&self, arguments: &[&str], text: Option<&str>) -> Result<String, Failure> {
        let stdin = if text.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = self.spawn(arguments, stdin)?;
        if let (Some(text), Some(mut stdin)) = (text, child.stdin.take()) {
            // One that has failed already does not read; how it ended is looked at below.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        Self::ended(child, arguments).await
    }

    fn spawn(&self, arguments: &[&str], stdin: Stdio) -> Result<Child, Failure> {
        let mut command = Command::new("kubectl");
        let command = command.args(&self.flags).args(arguments).kill_on_drop(true);
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(cannot_run)
    }

    async fn ended(child: Child, arguments: &[&str]) -> Result<String, Failure> {
        let output = child.wait_with_output().await.map_err(cannot_run)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let done = arguments.first().copied().unwrap_or_default();
        Err(Failure::Kubectl(format!("{done}: {error}")))
    }
}

fn cannot_run(error: std::io::Error) -> Failure {
    Failure::Kubectl(format!("it cannot be run: {error}"))
}

/// An answer of kubectl.
///
/// # Errors
/// When it is no JSON.
pub fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Kubectl(format!("its answer is no JSON: {error}")))
}

/// Whether a cluster was chosen by flags.
#[must_use]
pub fn is_chosen(kube: &KubeArguments) -> bool {
    kube.kubeconfig.is_some() || kube.kube_context.is_some()
}

/// Whether kubectl has a cluster to talk to.
#[must_use]
pub fn is_there(kube: &KubeArguments) -> bool {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = || variable("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    is_chosen(kube) || variable("KUBECONFIG").is_some() || own().is_some_and(|file| file.exists())
}
