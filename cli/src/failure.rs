//! What can go wrong, as a sentence with what to do, and an exit code that scripts can rely on.

use tonic::Code;

/// Exit codes.
pub mod code {
    /// The answer is there, and something in it needs a person.
    pub const FINDING: u8 = 1;
    /// The question was put wrongly.
    pub const USAGE: u8 = 2;
    /// The answer cannot be known: the hub is away, or what it knows is stale.
    pub const UNKNOWN: u8 = 3;
    /// The hub does not answer this certificate.
    pub const FORBIDDEN: u8 = 4;
    /// No answer in time.
    pub const TIMEOUT: u8 = 5;
    /// A plan waits for approval, or has changed since it was looked at.
    pub const APPROVAL: u8 = 6;
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0} is not set; set it in the environment or with --{1} (the demo: source .testbed/env)")]
    NotConfigured(&'static str, &'static str),
    #[error("cannot read {path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("{0:?} is not the address of a hub; write https://host:port")]
    Address(String),
    #[error("the hub at {hub} cannot be reached: {cause}; is it running, and is this its view's port?")]
    Unreachable { hub: String, cause: String },
    #[error("the hub at {0} did not answer in time; try again, or raise --timeout")]
    Timeout(String),
    #[error("{0}")]
    Usage(String),
    #[error("the hub does not answer this certificate: {0}")]
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
            Failure::NotConfigured(..) | Failure::File { .. } | Failure::Address(_) | Failure::Usage(_) => {
                code::USAGE
            }
            Failure::Unreachable { .. } | Failure::Hub(_) => code::UNKNOWN,
            Failure::Forbidden(_) => code::FORBIDDEN,
            Failure::Timeout(_) => code::TIMEOUT,
            Failure::Changed(_) => code::APPROVAL,
        }
    }

    /// Out of an answer of the hub.
    #[must_use]
    pub fn of(status: &tonic::Status, hub: &str) -> Failure {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::NotFound => Failure::Usage(text),
            Code::FailedPrecondition => Failure::Changed(text),
            Code::PermissionDenied | Code::Unauthenticated => Failure::Forbidden(text),
            Code::DeadlineExceeded => Failure::Timeout(hub.to_owned()),
            // TLS 1.3: a certificate that the hub refuses shows as a broken transport at the first request.
            Code::Unknown | Code::Unavailable if text.contains("transport") => Failure::Unreachable {
                hub: hub.to_owned(),
                cause: "the connection broke, which is also how a refused certificate looks; check --cert and --ca".to_owned(),
            },
            _ => Failure::Hub(text),
        }
    }
}
