//! Which objects are watched.

use crds::names;
use kube::runtime::watcher;

/// Objects that we made carry it.
pub(super) fn ours() -> watcher::Config {
    everything().labels(&format!("{}={}", names::LABEL_APP, names::APP))
}

/// Pods that hold volumes: with a node, not ended, and not of a backup.
pub(super) fn of_applications() -> watcher::Config {
    let backups = format!("{}!=backup", names::LABEL_TYPE);
    everything()
        .fields("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed")
        .labels(&backups)
}

/// Name of the watch of pods of applications, beside that of our own.
pub(super) const APP_PODS: &str = "Pod/applications";

/// A silently cut connection hides changes until the watch ends by itself, hence shorter than the server's default of
/// five minutes. Pages are small so that a list of thousands never lies in memory whole.
pub(super) fn everything() -> watcher::Config {
    watcher::Config::default().timeout(120).page_size(100)
}
