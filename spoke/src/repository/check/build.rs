//! The CronJob of a repository's integrity checks. Pure.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::CronJob;

use super::CHECK;
use crate::pod::maintenance::{self, DEFAULT_ACCOUNT, Maintenance, Slots, suspended_job};
use crate::pod::{self, JobSettings, Source};
use crate::repository::validate::Check;
use crate::world::Key;

/// A check ends by itself before this, with a result (`worker::check::TIME`).
const DEADLINE_SECONDS: i64 = 72 * 3600;
/// The CronJob. What a Job reads is in its order, so that the template stays as it is from check to check.
#[must_use]
pub fn cron_job(
    key: &Key,
    cluster: &str,
    repository: &ResticRepository,
    settings: &JobSettings,
    check: &Check,
    image: &str,
) -> CronJob {
    let template = Maintenance {
        job: settings,
        service_account: DEFAULT_ACCOUNT.to_owned(),
        image,
        repository,
        source: &Source::own(&key.name),
        cluster,
        arguments: vec![CHECK.to_owned()],
    }
    .template(labels(key, false));
    let name = names::check_cron_job(&key.name);
    let slots = Slots {
        cron: &check.cron,
        timezone: "UTC",
        suspend: false,
    };
    maintenance::cron_job(
        pod::controlled(repository, key, name, labels(key, true)),
        &slots,
        settings,
        suspended_job(DEADLINE_SECONDS, template),
    )
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_REPOSITORY, CHECK, &key.name, top)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_jobs_are_maintenance_jobs_born_suspended() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" },
                      "integrityCheck": { "schedule": "0 3 * * 0", "readDataSubset": "1/20" } },
        }))
        .unwrap();
        let check = Check::of(&repository).unwrap().unwrap();
        let settings = pod::job_settings(None).unwrap();
        let cron_job = cron_job(
            &Key::new("shop", "nas"),
            "prod-eu",
            &repository,
            &settings,
            &check,
            "spoke:1",
        );
        insta::assert_yaml_snapshot!("check_cron_job", cron_job);
    }
}
