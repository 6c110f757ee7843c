//! What manifests, scripts and dashboards that were written for the original operator rely on: names, types and defaults of
//! its fields, its short names and its columns. What is another on purpose is in docs/compatibility.md.

use serde_json::Value;

const REFERENCE: &str = "name string
    namespace string";

const JOB: &str = "concurrencyPolicy string \"Forbid\"
    successfulJobsHistoryLimit integer 3
    failedJobsHistoryLimit integer 3
    activeDeadlineSeconds integer 259200
    backoffLimit integer 0
    securityContext object
    resources object
    nodeSelector object
    tolerations array
    affinity object
    serviceAccountName string";

const KEEP: &str = "keepLast integer
    keepHourly integer
    keepDaily integer
    keepWeekly integer
    keepMonthly integer
    keepYearly integer";

const HOOK: &str = "exec.podSelector object
    exec.container string
    exec.command array
    exec.timeout string \"60s\"
    job.podTemplate object";

const NTFY: &str = "enabled boolean
    serverURL string
    topic string
    credentialsSecretRef.name string
    credentialsSecretRef.namespace string
    onlyOnFailure boolean
    priority integer 4
    tags array";

/// File of the definition, part of the schema, and its fields: name, type, and default as JSON where there is one.
const FIELDS: &[(&str, &str, &str)] = &[
    (
        "resticrepositories.yaml",
        "spec",
        "repositoryURL string
        credentialsSecretRef.name string
        credentialsSecretRef.key string
        integrityCheck.enabled boolean
        integrityCheck.schedule string
        cache.enabled boolean
        cache.size string \"5Gi\"
        cache.storageClassName string",
    ),
    (
        "resticrepositories.yaml",
        "status",
        "conditions array
        lastIntegrityCheck string
        lastIntegrityCheckResult string
        statistics.totalSize string
        statistics.totalFileCount integer
        statistics.snapshotCount integer
        observedGeneration integer",
    ),
    ("resticbackups.yaml", "spec.repositoryRef", REFERENCE),
    (
        "resticbackups.yaml",
        "spec",
        "schedule string
        timezone string \"UTC\"
        suspend boolean false
        source.pvc.claimName string
        source.pvc.paths array
        source.pvc.excludes array
        source.podVolumeBackup.selector object
        source.podVolumeBackup.volumeName string
        source.podVolumeBackup.container string
        source.customSource.podTemplate object
        source.customSource.backupPath string
        restic.hostname string
        restic.tags array
        restic.extraArgs array
        restic.image string \"ghcr.io/restic/restic:0.18.1\"
        retention.enabled boolean
        retention.prune boolean
        retention.groupBy array
        notifications.pushgateway.enabled boolean
        notifications.pushgateway.url string
        notifications.pushgateway.jobName string",
    ),
    ("resticbackups.yaml", "spec.hooks.preBackup", HOOK),
    ("resticbackups.yaml", "spec.hooks.postBackup", HOOK),
    ("resticbackups.yaml", "spec.hooks.onFailure", HOOK),
    ("resticbackups.yaml", "spec.retention.policy", KEEP),
    ("resticbackups.yaml", "spec.notifications.ntfy", NTFY),
    ("resticbackups.yaml", "spec.jobConfig", JOB),
    (
        "resticbackups.yaml",
        "status",
        "conditions array
        lastBackup.startTime string
        lastBackup.completionTime string
        lastBackup.duration string
        lastBackup.snapshotID string
        lastBackup.result string
        lastSuccessfulBackup string
        nextBackup string
        statistics.totalBackups integer 0
        statistics.successfulBackups integer 0
        statistics.failedBackups integer 0
        statistics.lastBackupSize string
        statistics.lastBackupFiles integer
        lastRetentionRun string
        snapshotsAfterRetention integer
        observedGeneration integer",
    ),
    ("resticbackups.yaml", "status.cronJobRef", REFERENCE),
    ("resticrestores.yaml", "spec.backupRef", REFERENCE),
    (
        "resticrestores.yaml",
        "spec",
        "snapshotID string
        snapshotSelector.latest boolean
        snapshotSelector.tags array
        snapshotSelector.hostname string
        snapshotSelector.before string
        target.pvc.claimName string
        target.pvc.path string
        target.newPVC.name string
        target.newPVC.storageClassName string
        target.newPVC.accessModes array
        target.newPVC.size string
        includePaths array
        excludePaths array
        options.overwrite boolean true
        options.verify boolean",
    ),
    ("resticrestores.yaml", "spec.hooks.preRestore", HOOK),
    ("resticrestores.yaml", "spec.hooks.postRestore", HOOK),
    ("resticrestores.yaml", "spec.jobConfig", JOB),
    (
        "resticrestores.yaml",
        "status",
        "conditions array
        phase string
        startTime string
        completionTime string
        restoredSnapshot string
        restoredFiles integer
        restoredSize string
        observedGeneration integer",
    ),
    ("resticrestores.yaml", "status.jobRef", REFERENCE),
    ("globalretentionpolicies.yaml", "spec.repositoryRef", REFERENCE),
    (
        "globalretentionpolicies.yaml",
        "spec",
        "schedule string
        policies.selector.tags array
        policies.selector.hostname string
        prune boolean
        suspend boolean false
        notifications.email.enabled boolean
        notifications.email.smtpServer string
        notifications.email.from string
        notifications.email.to string
        notifications.email.subject string",
    ),
    ("globalretentionpolicies.yaml", "spec.policies.retention", KEEP),
    ("globalretentionpolicies.yaml", "spec.notifications.ntfy", NTFY),
    ("globalretentionpolicies.yaml", "spec.jobConfig", JOB),
    (
        "globalretentionpolicies.yaml",
        "status",
        "conditions array
        lastRun string
        lastRunResult string
        lastRunDuration string
        repositorySizeBefore string
        repositorySizeAfter string
        snapshotsRemoved integer
        nextRun string
        observedGeneration integer",
    ),
    ("globalretentionpolicies.yaml", "status.cronJobRef", REFERENCE),
];

const READY: &str = r#".status.conditions[?(@.type=="Ready")].status"#;

/// File of the definition, short name, and columns with their paths.
type Columns = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const COLUMNS: &[Columns] = &[
    (
        "resticrepositories.yaml",
        "rr",
        &[
            ("URL", ".spec.repositoryURL"),
            ("Ready", READY),
            ("Snapshots", ".status.statistics.snapshotCount"),
            ("Age", ".metadata.creationTimestamp"),
        ],
    ),
    (
        "resticbackups.yaml",
        "rb",
        &[
            ("Schedule", ".spec.schedule"),
            ("Ready", READY),
            ("Last Success", ".status.lastSuccessfulBackup"),
            ("Age", ".metadata.creationTimestamp"),
        ],
    ),
    (
        "resticrestores.yaml",
        "rres",
        &[
            ("Phase", ".status.phase"),
            ("Snapshot", ".status.snapshot"),
            ("Age", ".metadata.creationTimestamp"),
        ],
    ),
    (
        "globalretentionpolicies.yaml",
        "grp",
        &[
            ("Schedule", ".spec.schedule"),
            ("Ready", READY),
            ("Last Run", ".status.lastRun"),
            ("Age", ".metadata.creationTimestamp"),
        ],
    ),
];

fn definition(file: &str) -> Value {
    let all = crds::schema::definitions();
    let (_, definition) = all.into_iter().find(|(name, _)| *name == file).unwrap();
    definition
}

/// A part of a schema; null where there is none.
fn part<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |schema, name| {
        &schema.get("items").unwrap_or(schema)["properties"][name]
    })
}

#[test]
fn each_field_has_its_name_type_and_default() {
    for (file, at, fields) in FIELDS {
        let definition = definition(file);
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for line in fields.lines() {
            let mut words = line.trim().splitn(3, ' ');
            let path = format!("{at}.{}", words.next().unwrap());
            let field = part(schema, &path);
            assert_eq!(field["type"].as_str(), words.next(), "{file}: {path}");
            let default = words.next().map(|text| serde_json::from_str(text).unwrap());
            assert_eq!(field["default"], default.unwrap_or(Value::Null), "{file}: {path}");
        }
    }
}

#[test]
fn each_short_name_and_column_is_there() {
    for (file, short, columns) in COLUMNS {
        let definition = definition(file);
        assert_eq!(definition["spec"]["names"]["shortNames"][0], *short);
        let shown = &definition["spec"]["versions"][0]["additionalPrinterColumns"];
        for (name, path) in *columns {
            let mut shown = shown.as_array().unwrap().iter();
            assert!(
                shown.any(|column| column["name"] == *name && column["jsonPath"] == *path),
                "{file}: {name}"
            );
        }
    }
}
