//! An object that was not applied, and why.

use std::fmt;

use crate::apply::{ApplyError, Object};
use crate::world::Meta;

/// [`Refused::kind`] of a retention policy.
pub(super) const POLICY: &str = "GlobalRetentionPolicy";

/// The object that could not be applied, and why. Those after it were not tried.
#[derive(Debug)]
pub struct Refused {
    /// As in the API, such as CronJob.
    pub kind: &'static str,
    pub name: String,
    pub cause: Cause,
}

/// Why an object was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Write(ApplyError),
    /// Another object of this name exists; its metadata, and the API server's message.
    #[error("{text}")]
    Occupied { meta: Box<Meta>, text: String },
    /// Another program changes it each time it was put right; the name of that manager.
    #[error(
        "\"{by}\" changes it each time it was put right: stop that program; until then it is put right every few minutes at most"
    )]
    Contested { by: String },
    /// [`Children::permission`] was not given.
    #[error("{0}")]
    NotAllowed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.cause)
    }
}

impl Refused {
    pub(super) fn write<T: Object + k8s_openapi::Resource>(
        name: impl Into<String>,
        error: ApplyError,
    ) -> Refused {
        Refused {
            kind: T::KIND,
            name: name.into(),
            cause: Cause::Write(error),
        }
    }

    /// Reason of condition Ready, by the object.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use crds::conditions::reasons;
        match self.kind {
            "CronJob" => reasons::CRON_JOB_FAILED,
            "ServiceAccount" => reasons::SERVICE_ACCOUNT_FAILED,
            "Role" | "RoleBinding" => reasons::ROLE_FAILED,
            "Secret" => reasons::SECRET_FAILED,
            "PersistentVolumeClaim" => reasons::TARGET_FAILED,
            _ => reasons::JOB_CREATION_FAILED,
        }
    }

    /// A backup's retention policy, without which the backup runs.
    #[must_use]
    pub fn is_of_policy(&self) -> bool {
        self.kind == POLICY
    }

    /// The API server refuses the object: trying again helps only after a change of the spec, a quota, or rights.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self.cause,
            Cause::Write(ApplyError::Invalid(_) | ApplyError::Forbidden(_))
        )
    }

    /// No later attempt is expected to succeed with the same spec.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        matches!(
            self.cause,
            Cause::Occupied { .. } | Cause::Write(ApplyError::Invalid(_) | ApplyError::Conflict(_))
        )
    }

    pub(in crate::kind) fn is_not_leader(&self) -> bool {
        matches!(self.cause, Cause::Write(ApplyError::NotLeader))
    }
}
