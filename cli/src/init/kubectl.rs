//! The person's own kubectl: it has the rights and the ways to log in that the person has.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::failure::Failure;

/// kubectl in a context.
pub struct Kubectl {
    context: Vec<String>,
}

impl Kubectl {
    /// In a context, or in the present one.
    #[must_use]
    pub fn new(context: Option<&str>) -> Kubectl {
        let context = context.map(|name| vec!["--context".to_owned(), name.to_owned()]);
        Kubectl {
            context: context.unwrap_or_default(),
        }
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

    async fn start(&self, arguments: &[&str], text: Option<&str>) -> Result<String, Failure> {
        let failed = |error: std::io::Error| Failure::Kubectl(format!("it cannot be run: {error}"));
        let mut command = Command::new("kubectl");
        let command = command.args(&self.context).args(arguments).kill_on_drop(true);
        let stdin = if text.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let (Some(text), Some(mut stdin)) = (text, child.stdin.take()) {
            // One that has failed already does not read; how it ended is looked at below.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let done = arguments.first().copied().unwrap_or_default();
        Err(Failure::Kubectl(format!("{done}: {error}")))
    }
}
