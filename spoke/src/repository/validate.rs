//! A spec as it may be worked with. What comes after reads only this.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::ResticRepository;
use crds::integrity::Subset;
use crds::schedule::{Schedule, ScheduleError, parse_duration, resolve, seed};
use crds::window::BadWindow;

use crate::secrets::{Backend, OptionError, check_options};

/// Shortest interval of statistics: reading them more often costs more than it is worth.
const INTERVAL_MIN: Duration = Duration::from_secs(60);

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Between two readings of statistics.
    pub interval: Duration,
    pub check: Option<Check>,
}

/// Integrity checks that are asked for, as they may be worked with.
#[derive(Clone, Debug)]
pub struct Check {
    pub schedule: Schedule,
    /// The same as Kubernetes takes it.
    pub cron: String,
}

impl Check {
    /// `None` where none are asked for.
    ///
    /// # Errors
    /// When schedule or subset are not valid.
    pub fn of(repository: &ResticRepository) -> Result<Option<Check>, Invalid> {
        let check = repository.spec.integrity_check.as_ref();
        let Some(check) = check.filter(|check| check.is_wanted()) else {
            return Ok(None);
        };
        if let Some(text) = &check.read_data_subset {
            Subset::parse(text).ok_or_else(|| Invalid::Subset(text.clone()))?;
        }
        let own = seed("ResticRepository", &repository.metadata);
        let cron = resolve(check.schedule(), &own)?;
        Ok(Some(Check {
            schedule: Schedule::parse(&cron, "UTC")?,
            cron,
        }))
    }
}

/// Why a spec is refused, with the field to change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "spec.repositoryURL begins with no back end that restic knows; write s3:, rest:, sftp:, azure:, gs:, b2:, swift: or rclone:"
    )]
    Backend,
    #[error(
        "spec.repositoryURL {0:?} is a folder of the container that restic runs in: the operator and each backup would see another one, and it ends with the container. Put a server in front of the folder's volume (rest-server or SFTP), and write rest: or sftp:"
    )]
    Local(String),
    #[error("spec.refreshInterval {0:?} is not a duration of at least one minute; write 1h or 15m")]
    Interval(String),
    #[error("spec.backendOptions: {0}")]
    Option(#[from] OptionError),
    #[error("spec.{0}")]
    Window(#[from] BadWindow),
    #[error("spec.integrityCheck: {0}")]
    Check(#[from] ScheduleError),
    #[error(
        "spec.integrityCheck.readDataSubset {0:?} is not n/t with n not above t, and t not above 256; write 1/20 to read another twentieth of the data each time"
    )]
    Subset(String),
}

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
pub fn validate(repository: &ResticRepository, default_interval: Duration) -> Result<Valid, Invalid> {
    let spec = &repository.spec;
    let backend = Backend::of(&spec.repository_url).ok_or(Invalid::Backend)?;
    check_options(backend, spec.backend_options.as_ref().unwrap_or(&BTreeMap::new()))?;
    if is_local(&spec.repository_url) {
        return Err(Invalid::Local(spec.repository_url.clone()));
    }
    let interval = match &spec.refresh_interval {
        None => default_interval,
        Some(text) => parse_duration(text)
            .and_then(|d| Duration::try_from(d).ok())
            .filter(|d| *d >= INTERVAL_MIN)
            .ok_or_else(|| Invalid::Interval(text.clone()))?,
    };
    let check = Check::of(repository)?;
    if let Some(window) = &spec.allowed_window {
        window.parse("ResticRepository", &repository.metadata)?;
    }
    Ok(Valid { interval, check })
}

/// Whether a URL names a folder of the machine that restic runs on, directly or through rclone. A remote of rclone's
/// configuration may still lead to one.
fn is_local(url: &str) -> bool {
    match url.split_once(':') {
        Some(("local", _)) => true,
        Some(("rclone", remote)) => {
            let folder = |text: &str| text.starts_with(['/', '.', '~']) || !text.contains(':');
            folder(remote) || remote.starts_with(":local")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_container_is_no_repository() {
        for (url, local) in [
            ("local:/srv/restic", true),
            ("local:relative", true),
            ("rclone:/srv/restic", true),
            ("rclone:./restic", true),
            ("rclone:restic", true),
            ("rclone::local:/srv/restic", true),
            ("rclone::local,copy_links:/srv", true),
            ("rclone:box:restic", false),
            ("rclone::s3,provider=AWS:bucket", false),
            ("sftp:u@h:/srv", false),
            ("s3:https://h/local:", false),
        ] {
            assert_eq!(is_local(url), local, "{url}");
        }
    }

    #[test]
    fn statistics_are_read_at_the_interval_of_the_spec() {
        let interval = |given: Option<&str>| {
            let repository: ResticRepository = serde_json::from_value(serde_json::json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": "nas" },
                "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "refreshInterval": given },
            }))
            .unwrap();
            let valid = validate(&repository, Duration::from_secs(3600));
            valid.map(|valid| valid.interval.as_secs())
        };
        assert_eq!((interval(None), interval(Some("15m"))), (Ok(3600), Ok(900)));
        for wrong in ["59s", "soon"] {
            assert_eq!(interval(Some(wrong)), Err(Invalid::Interval(wrong.to_owned())));
        }
    }
}
