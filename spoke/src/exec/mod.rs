//! A command in a container of a running pod, by the Kubernetes API. Its standard input is not connected: what is sent
//! there may arrive cut short and be reported as success. A command that was started cannot be ended from here: when the
//! connection ends, it goes on.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Annotation with the container that is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Bytes of the output's end that are kept.
const TAIL: usize = 1024;

/// What to run, and where.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub pod: &'a str,
    pub container: &'a str,
    /// Program and arguments.
    pub command: &'a [String],
}

/// Why there is no exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The command was not started.
    #[error("{0}")]
    NotStarted(String),
    /// It was started, or may have been, and its end is not known.
    #[error("{0}")]
    NoEnd(String),
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    /// The end of what it wrote to both of its outputs.
    pub output: String,
}

/// The container of a pod that is meant: the named one, or the pod's default.
#[must_use]
pub fn container(pod: &Pod, named: Option<&str>) -> String {
    let annotations = pod.metadata.annotations.as_ref();
    let default = annotations
        .and_then(|a| a.get(DEFAULT_CONTAINER))
        .map(String::as_str);
    let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    named
        .or(default)
        .or(first.map(|container| container.name.as_str()))
        .unwrap_or_default()
        .to_owned()
}

/// Starts a command; both of its outputs can be read.
///
/// # Errors
/// When it was not started, or perhaps was.
pub async fn start(api: &Api<Pod>, call: Call<'_>) -> Result<AttachedProcess, Trouble> {
    let parameters = AttachParams::default()
        .container(call.container)
        .stdin(false)
        .stdout(true)
        .stderr(true);
    let command = call.command.iter().map(String::as_str);
    api.exec(call.pod, command, &parameters)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => Trouble::NotStarted(status.message.clone()),
            error => Trouble::NoEnd(error.to_string()),
        })
}

/// Runs a command to its end. `write` is given its output as it comes.
///
/// # Errors
/// When it has no exit code.
pub async fn run(
    api: &Api<Pod>,
    call: Call<'_>,
    write: impl Fn(&[u8]) + Send + Sync,
) -> Result<Ended, Trouble> {
    let mut process = start(api, call).await?;
    let status = process.take_status();
    let tail = std::sync::Mutex::new(Vec::new());
    let keep = |bytes: &[u8]| {
        write(bytes);
        let mut tail = tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        let over = tail.len().saturating_sub(TAIL);
        tail.drain(..over);
    };
    let (out, err) = (process.stdout(), process.stderr());
    tokio::join!(drain(out, &keep), drain(err, &keep));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let Some(status) = status else {
        return Err(Trouble::NoEnd(
            "the connection to the container ended before the command did".to_owned(),
        ));
    };
    let code = exit_code(&status)?;
    let tail = tail.into_inner().unwrap_or_default();
    Ok(Ended {
        code,
        output: String::from_utf8_lossy(&tail).trim().to_owned(),
    })
}

async fn drain(reader: Option<impl AsyncRead + Unpin>, keep: &impl Fn(&[u8])) {
    let Some(mut reader) = reader else { return };
    let mut buffer = [0; 4096];
    // A connection that breaks shows in the status.
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        keep(buffer.get(..length).unwrap_or_default());
    }
}

/// The exit code in the status that the container runtime sends last.
///
/// # Errors
/// When the command did not run to an exit code.
pub fn exit_code(status: &Status) -> Result<i32, Trouble> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status
        .details
        .as_ref()
        .and_then(|details| details.causes.as_ref());
    let code = causes.into_iter().flatten().find_map(|cause| {
        let is_code = cause.reason.as_deref() == Some("ExitCode");
        cause.message.as_deref().filter(|_| is_code)?.parse().ok()
    });
    let text = status.message.clone().unwrap_or_default();
    // runc's words for a program that is not there, or not one.
    let not_started = text.contains("unable to start container process");
    code.ok_or(if not_started {
        Trouble::NotStarted(text)
    } else {
        Trouble::NoEnd(text)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn code(status: Value) -> Result<i32, Trouble> {
        exit_code(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn only_an_exit_code_is_an_end() {
        assert_eq!(code(json!({ "status": "Success" })), Ok(0));
        let causes = json!([{ "reason": "ExitCode", "message": "7" }]);
        assert_eq!(
            code(
                json!({ "status": "Failure", "reason": "NonZeroExitCode", "details": { "causes": causes } })
            ),
            Ok(7)
        );
        let missing = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"x\": executable file not found in $PATH";
        assert_eq!(
            code(json!({ "status": "Failure", "reason": "InternalError", "message": missing })),
            Err(Trouble::NotStarted(missing.to_owned()))
        );
        assert_eq!(
            code(json!({ "status": "Failure", "message": "error reading from the runtime" })),
            Err(Trouble::NoEnd("error reading from the runtime".to_owned()))
        );
        assert!(matches!(code(json!({})), Err(Trouble::NoEnd(_))));
    }

    #[test]
    fn the_named_container_comes_before_the_default_and_that_before_the_first() {
        let pod = |annotations: Value| -> Pod {
            serde_json::from_value(json!({ "metadata": { "annotations": annotations },
                "spec": { "containers": [{ "name": "one" }, { "name": "two" }] } }))
            .unwrap()
        };
        let plain = pod(json!({}));
        assert_eq!(container(&plain, Some("two")), "two");
        assert_eq!(container(&plain, None), "one");
        let marked = pod(json!({ DEFAULT_CONTAINER: "two" }));
        assert_eq!(container(&marked, None), "two");
        assert_eq!(container(&marked, Some("one")), "one");
    }
}
