//! What can go wrong, as a sentence with what to do, and an exit code that scripts can rely on.

use std::error::Error;

use tonic::Code;

/// Exit codes.
pub mod code {
    /// The answer is there, and something in it needs a person.
    pub const FINDING: u8 = 1;
    /// The question was put wrongly.
    pub const USAGE: u8 = 2;
    /// The answer cannot be known: the hub is away, or what it knows is stale.
    pub const UNKNOWN: u8 = 3;
    /// Hub and caller do not trust each other's certificates, or this one may not do that.
    pub const FORBIDDEN: u8 = 4;
    /// No answer in time.
    pub const TIMEOUT: u8 = 5;
    /// A plan waits for approval, or what was decided about has changed since it was looked at (a plan's hash, a token).
    pub const APPROVAL: u8 = 6;
}

/// What to do about a certificate that the hub refuses.
const REFUSED: &str =
    "it has to be valid and signed by the authority that the hub trusts (FLEET_CERT, FLEET_KEY)";

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0} is not set; set it in the environment or with --{1}, or log in: fleet login --help")]
    NotConfigured(&'static str, &'static str),
    #[error("cannot read {path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("cannot write {path}: {error}")]
    Output { path: String, error: std::io::Error },
    #[error("{0:?} is not the address of a hub; write https://host:port")]
    Address(String),
    #[error("the hub at {hub} cannot be reached: {cause}; is it running, and is this its view's port?")]
    Unreachable { hub: String, cause: String },
    #[error("the hub at {hub} is not trusted: {cause}; {advice}")]
    Untrusted {
        hub: String,
        cause: String,
        advice: &'static str,
    },
    #[error("the hub at {hub} refuses this certificate: {cause}; {REFUSED}")]
    Refused { hub: String, cause: String },
    #[error("the hub at {0} did not answer in time; try again, or raise --timeout")]
    Timeout(String),
    #[error("kubectl failed: {0}")]
    Kubectl(String),
    #[error("{0}")]
    Usage(String),
    #[error("permission denied: {0}")]
    Forbidden(String),
    #[error("{0}")]
    Changed(String),
    #[error("the hub failed: {0}")]
    Hub(String),
}

impl Failure {
    /// Exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Failure::NotConfigured(..)
            | Failure::File { .. }
            | Failure::Output { .. }
            | Failure::Address(_)
            | Failure::Usage(_) => code::USAGE,
            Failure::Unreachable { .. } | Failure::Hub(_) | Failure::Kubectl(_) => code::UNKNOWN,
            Failure::Forbidden(_) | Failure::Untrusted { .. } | Failure::Refused { .. } => code::FORBIDDEN,
            Failure::Timeout(_) => code::TIMEOUT,
            Failure::Changed(_) => code::APPROVAL,
        }
    }

    /// Out of an answer of the hub. `answered`: whether it has answered before on this connection.
    #[must_use]
    pub fn of(status: &tonic::Status, hub: &str, answered: bool) -> Failure {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::NotFound => Failure::Usage(text),
            Code::FailedPrecondition => Failure::Changed(text),
            Code::PermissionDenied | Code::Unauthenticated => Failure::Forbidden(text),
            Code::DeadlineExceeded => Failure::Timeout(hub.to_owned()),
            _ => match Self::of_certificates(status, hub) {
                Some(failure) => failure,
                // Nothing here cancels a request.
                None if status.code() == Code::Cancelled || text.contains("transport") => {
                    let hub = hub.to_owned();
                    if answered {
                        let cause = "the connection broke".to_owned();
                        Failure::Unreachable { hub, cause }
                    } else {
                        // With TLS 1.3 a hub refuses a certificate after the handshake: the first request is cut off,
                        // and its alert is often lost.
                        let cause = "it closed the connection at the first request".to_owned();
                        Failure::Refused { hub, cause }
                    }
                }
                None => Failure::Hub(text),
            },
        }
    }

    /// Out of an attempt to connect.
    #[must_use]
    pub fn connecting(error: &(dyn Error + 'static), hub: &str) -> Failure {
        Self::of_certificates(error, hub).unwrap_or_else(|| Failure::Unreachable {
            hub: hub.to_owned(),
            cause: causes(error).last().cloned().unwrap_or_default(),
        })
    }

    /// A matter of trust, if the causes name one.
    fn of_certificates(error: &(dyn Error + 'static), hub: &str) -> Option<Failure> {
        let causes = causes(error);
        let hub = hub.to_owned();
        if let Some(cause) = causes.iter().find(|cause| cause.contains("received fatal alert")) {
            let cause = cause.clone();
            return Some(Failure::Refused { hub, cause });
        }
        let cause = causes
            .iter()
            .rfind(|cause| cause.contains("invalid peer certificate"))?;
        let advice = if cause.contains("not valid for name") || cause.contains("NotValidForName") {
            "its certificate is for another name: set FLEET_SERVER_NAME to one that it holds"
        } else if cause.contains("xpired") {
            "renew the hub's certificate, and check the clocks"
        } else {
            "another authority has signed its certificate: check FLEET_CA"
        };
        Some(Failure::Untrusted {
            hub,
            cause: cause.clone(),
            advice,
        })
    }
}

/// An error and its causes, the innermost last.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}
