//! The hub's own files, whose age and size are watched.

use std::path::{Path, PathBuf};

use tracing::debug;
use x509_parser::pem::Pem;

use crate::config::Config;
use crate::{Millis, membership};

/// Files of a hub.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Name and file of each certificate whose end is watched.
    certificates: Vec<(&'static str, PathBuf)>,
    store: PathBuf,
}

impl Files {
    /// As it was started.
    #[must_use]
    pub fn of(config: &Config) -> Files {
        // What the hub's own authority signs is renewed in time.
        let given = [
            ("hub", config.tls_cert.clone()),
            ("hub-authority", config.tls_cert_ca.clone()),
            ("clients", config.tls_ca.clone()),
        ];
        let own = membership::authority_folder(config).map(|folder| folder.join("active.pem"));
        let files = given.into_iter().chain([("authority", own)]);
        Files {
            certificates: files.filter_map(|(name, file)| Some((name, file?))).collect(),
            store: config.store.clone(),
        }
    }

    /// When each certificate ends, in milliseconds since 1970; `None` for one that cannot be read.
    #[must_use]
    pub fn certificates(&self) -> Vec<(&'static str, Option<Millis>)> {
        let ends = |(name, file): &(&'static str, PathBuf)| {
            let seconds = expiry(file);
            if seconds.is_none() {
                debug!(file = %file.display(), "a certificate cannot be read");
            }
            (*name, seconds.map(|seconds| seconds.saturating_mul(1000)))
        };
        self.certificates.iter().map(ends).collect()
    }

    /// Bytes of the store and its journal on disk.
    #[must_use]
    pub fn store_bytes(&self) -> u64 {
        let of = |suffix: &str| {
            let mut name = self.store.as_os_str().to_owned();
            name.push(suffix);
            std::fs::metadata(PathBuf::from(name)).map_or(0, |metadata| metadata.len())
        };
        of("") + of("-wal")
    }
}

/// When the first certificate of a file expires, in seconds since 1970.
fn expiry(file: &Path) -> Option<i64> {
    let bytes = std::fs::read(file).ok()?;
    let ends = Pem::iter_from_buffer(&bytes).filter_map(|pem| {
        let pem = pem.ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min()
}
