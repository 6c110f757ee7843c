//! A spec as it may be worked with. What comes after reads only this.

use std::time::Duration;

use crds::ResticRepository;
use crds::schedule::parse_duration;

use crate::secrets::Backend;

/// Statistics more often than this would cost more than they tell.
const INTERVAL_MIN: Duration = Duration::from_secs(60);

/// A valid spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    pub url: String,
    pub secret: String,
    /// Between two readings of statistics.
    pub interval: Duration,
}

/// Why a spec is refused, with the field to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "spec.repositoryURL begins with no back end that restic knows; write s3:, rest:, sftp:, azure:, gs:, b2:, swift:, rclone: or local:"
    )]
    Backend,
    #[error("spec.refreshInterval {0:?} is not a duration of at least one minute; write 1h or 15m")]
    Interval(String),
}

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
pub fn validate(repository: &ResticRepository, default_interval: Duration) -> Result<Valid, Invalid> {
    let spec = &repository.spec;
    Backend::of(&spec.repository_url).ok_or(Invalid::Backend)?;
    let interval = match &spec.refresh_interval {
        None => default_interval,
        Some(text) => parse_duration(text)
            .and_then(|d| Duration::try_from(d).ok())
            .filter(|d| *d >= INTERVAL_MIN)
            .ok_or_else(|| Invalid::Interval(text.clone()))?,
    };
    Ok(Valid {
        url: spec.repository_url.clone(),
        secret: spec.credentials_secret_ref.name.clone(),
        interval,
    })
}
