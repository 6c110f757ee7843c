//! What the tests share: the bed with the product in it, namespaces of their own, and waiting for states.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Bed, Cluster, charts, fleet};

/// What a person would wait for, with room for a busy machine.
pub const SOON: Duration = Duration::from_secs(90);

/// How the bed of a suite is set: what a person would choose by flags.
pub struct Suite {
    /// Name of the bed that `tests/run.sh` brings up.
    bed: &'static str,
    /// Life of a lease without a renewal.
    pub ttl: Duration,
    /// Pause after a holder fell silent.
    pub delay: Duration,
    /// Longest time that backups are held before maintenance.
    drain: Duration,
    /// Policies that took part in a run this long ago need none of their own.
    coalesce: &'static str,
    /// How long a run waits for restic's lock of others.
    retry_lock: &'static str,
    /// How often two clusters ask at the same moment.
    pub rounds: usize,
    /// Installed by its charts, not by its manifests.
    pub by_charts: bool,
}

impl Suite {
    /// The suite whose name `FLEET_SUITE` holds. Lives of leases are short, so that their loss shows quickly.
    fn named(name: &str) -> Suite {
        let test = Suite {
            bed: "test",
            ttl: Duration::from_secs(20),
            delay: Duration::from_secs(40),
            drain: Duration::from_secs(20),
            coalesce: "1m",
            // Longer than any test holds a lock.
            retry_lock: "30m",
            rounds: 3,
            by_charts: false,
        };
        match name {
            "" | "test" => test,
            // Each fault is judged by its own runs, and nothing is gained by waiting for backups.
            "faults" => Suite {
                bed: "faults",
                drain: Duration::from_secs(5),
                coalesce: "off",
                // A run that meets the lock of a dead process gives the repository back, so that it can be removed.
                retry_lock: "40s",
                rounds: 20,
                ..test
            },
            // A hub that is put back is away for longer than the short life of a lease, and not for half of the usual one.
            "upgrade" | "helm-upgrade" => Suite {
                bed: name.to_owned().leak(),
                ttl: Duration::from_secs(180),
                delay: Duration::from_secs(10),
                coalesce: "off",
                by_charts: name == "helm-upgrade",
                ..test
            },
            // A part of the tests on a bed of its own.
            other => Suite {
                bed: other.to_owned().leak(),
                ..test
            },
        }
    }

    /// From the last renewal of a holder that fell silent to the next grant, at least.
    pub fn silence(&self) -> Duration {
        self.ttl + self.delay
    }

    fn hub(&self) -> Vec<(&'static str, String)> {
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        vec![
            ("FLEET_HUB_LEASE_TTL", seconds(self.ttl)),
            ("FLEET_HUB_LOCK_DELAY", seconds(self.delay)),
            ("FLEET_HUB_UNSAFE_SHORT_LEASES", "true".to_owned()),
            ("FLEET_HUB_DRAIN_LIMIT", seconds(self.drain)),
            // Four times the spokes' probe deadline.
            ("FLEET_HUB_CREATION_HOLD", "40s".to_owned()),
            ("FLEET_HUB_COALESCE_WINDOW", self.coalesce.to_owned()),
        ]
    }
}

/// The suite that runs.
pub fn suite() -> &'static Suite {
    static SUITE: OnceLock<Suite> = OnceLock::new();
    SUITE.get_or_init(|| Suite::named(&std::env::var("FLEET_SUITE").unwrap_or_default()))
}

/// The bed, with hub and spokes installed once.
pub fn bed() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| {
        let bed = Bed::attach(suite().bed).unwrap();
        // Quick retries, so that mending a cause shows quickly; the defaults are for production.
        let settings = [
            ("FLEET_RETRY_INTERVAL", "1s"),
            ("FLEET_PROBE_DEADLINE", "10s"),
            ("FLEET_REFRESH_INTERVAL", "20s"),
            // restic's own times cannot be shortened, those for pods that are proven dead can.
            ("FLEET_LOCK_INTERVAL", "10s"),
            ("FLEET_TEST_UNLOCK_AFTER", "30s"),
            ("FLEET_MAINTENANCE_RETRY_LOCK", suite().retry_lock),
        ];
        let hub = suite().hub();
        let hub: Vec<(&str, &str)> = hub.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // Cluster a is as it comes: its hub may not make it restore.
        let own = [("b", ("FLEET_ALLOW", "read,run,suspend,restore,unlock,retain"))];
        let installed = match previous() {
            // It does not know each of these words.
            Some(folder) => bed
                .workspace
                .previous_images(&folder)
                .and_then(|images| bed.load(&images))
                .and_then(|()| match (suite().by_charts, folder.join("deploy")) {
                    (true, deploy) => charts::install_from(&bed, &deploy, &settings, &hub),
                    (false, deploy) => fleet::install_from(&bed, &deploy, &settings, &[], &hub),
                }),
            None => fleet::install_with(&bed, &settings, &own, &hub),
        };
        if let Err(error) = installed {
            keep_logs(&bed);
            panic!("{error:#}");
        }
        bed
    })
}

/// What `tests/previous.sh` has made of the version before, where a suite begins with that.
pub fn previous() -> Option<PathBuf> {
    std::env::var_os("FLEET_PREVIOUS").map(PathBuf::from)
}

/// Copies what a person would look at after a failure: of the first one, since others may follow from it, and says how busy
/// the machine is at each.
pub fn keep_logs(bed: &Bed) {
    static FIRST: Once = Once::new();
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/e2e-logs");
    FIRST.call_once(|| {
        bed.collect_logs(&dir).ok();
    });
    eprintln!(
        "logs of the clusters at the first failure are in {}",
        dir.display()
    );
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let available = memory.lines().find(|line| line.starts_with("MemAvailable"));
    eprintln!(
        "load of the machine: {}; {}",
        read("/proc/loadavg").trim(),
        available.unwrap_or_default()
    );
}

/// A namespace with a claim `data` that holds some files, and credentials for both storage servers.
pub struct Place {
    pub cluster: Cluster,
    pub namespace: String,
}

impl Place {
    pub fn new(cluster: &str, namespace: &str) -> Place {
        let cluster = bed().cluster(cluster).unwrap();
        let place = Place {
            cluster,
            namespace: namespace.to_owned(),
        };
        // Of a place that was there before, things are left.
        let made = tests::objects::create_namespace(&place.cluster, namespace);
        made.unwrap_or_else(|error| panic!("each test has a namespace of its own, on a new bed: {error:#}"));
        place.apply(&[
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" },
                    "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
            place.secret("storage", "right horse"),
        ]);
        fleet::open_volume(&place.cluster, namespace, "data").unwrap();
        place.write("small/a.txt", b"hello");
        place.write("small/b \"quoted\" ü.txt", b"names are hard");
        place.write("big.bin", &noise(2 << 20));
        place
    }

    /// Writes a file into the claim.
    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.data().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The claim's folder on this machine.
    pub fn data(&self) -> PathBuf {
        fleet::volume_path(&self.cluster, &self.namespace, "data")
            .unwrap()
            .into()
    }

    pub fn secret(&self, name: &str, password: &str) -> Value {
        let servers = bed().servers();
        let ((key, secret), (user, rest)) = (servers.s3_credentials(), servers.rest_credentials());
        let ca = std::fs::read_to_string(servers.rest_ca()).unwrap();
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": {
            "RESTIC_PASSWORD": password, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
            "RESTIC_REST_USERNAME": user, "RESTIC_REST_PASSWORD": rest, "RESTIC_CACERT": ca } })
    }

    pub fn repository(&self, name: &str, url: &str) -> Value {
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": name },
                "spec": { "repositoryURL": url, "credentialsSecretRef": { "name": "storage" } } })
    }

    pub fn backup(&self, name: &str, repository: Value, more: Value) -> Value {
        let mut spec = json!({ "repositoryRef": repository, "schedule": "@yearly", "source": { "pvc": { "claimName": "data" } } });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": name }, "spec": spec })
    }

    /// Applies objects in this namespace.
    pub fn apply(&self, objects: &[Value]) {
        tests::objects::apply(&self.cluster, &self.placed(objects)).unwrap();
    }

    /// The same by kubectl, whose output it returns.
    pub fn try_apply(&self, objects: &[Value]) -> anyhow::Result<String> {
        let text: Vec<String> = self.placed(objects).iter().map(Value::to_string).collect();
        self.cluster.apply(&text.join("\n---\n"))
    }

    fn placed(&self, objects: &[Value]) -> Vec<Value> {
        let place = |object: &Value| {
            let mut object = object.clone();
            let in_none =
                ["Namespace", "PersistentVolume"].contains(&object["kind"].as_str().unwrap_or_default());
            if !in_none && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = json!(self.namespace);
            }
            object
        };
        objects.iter().map(place).collect()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend_from_slice(arguments);
        self.cluster.kubectl(&all)
    }

    /// An object as it is now; null when there is none. A read that fails ends the test: it does not mean that there is none.
    pub fn get(&self, object: &str) -> Value {
        self.read(object).unwrap_or_else(|error| {
            panic!(
                "{}/{object} in cluster {} cannot be read: {error:#}",
                self.namespace, self.cluster.name
            )
        })
    }

    fn read(&self, object: &str) -> anyhow::Result<Value> {
        tests::objects::get(&self.cluster, &self.namespace, object)
    }

    /// Waits until an object is as described.
    pub fn until(&self, object: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_within(SOON, object, what, holds)
    }

    /// The same, for what may take longer.
    pub fn until_within(
        &self,
        limit: Duration,
        object: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + limit;
        loop {
            let now = self.read(object);
            match &now {
                Ok(now) if holds(now) => return now.clone(),
                _ if Instant::now() <= end => {}
                now => {
                    keep_logs(bed());
                    let status = now.as_ref().map(|now| &now["status"]);
                    panic!(
                        "{}/{object} in cluster {}: {what} did not come; status is {status:#?}",
                        self.namespace, self.cluster.name
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits for a reason of condition Ready, and returns its message.
    pub fn until_reason(&self, object: &str, reason: &str) -> String {
        let now = |o: &Value| {
            let ready = condition(o, "Ready");
            ready["reason"] == reason && is_current(o, &ready)
        };
        let object = self.until(object, reason, now);
        condition(&object, "Ready")["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn until_ready(&self, object: &str) -> Value {
        let ready = |o: &Value| {
            let ready = condition(o, "Ready");
            ready["status"] == "True" && is_current(o, &ready)
        };
        self.until(object, "Ready", ready)
    }

    /// Asks for one backup, and waits for its result.
    pub fn run(&self, backup: &str, request: &str) -> Value {
        let object = format!("resticbackup/{backup}");
        let before = self.get(&object)["status"]["statistics"]["totalBackups"]
            .as_i64()
            .unwrap_or_default();
        let asked = json!({ "metadata": { "annotations": { "backup.resticbackup.io/run": request } } });
        tests::objects::merge(&self.cluster, &self.namespace, &object, &asked).unwrap();
        let done = |o: &Value| {
            o["status"]["statistics"]["totalBackups"]
                .as_i64()
                .unwrap_or_default()
                > before
        };
        self.until(&object, "a finished run", done)["status"]["lastBackup"].clone()
    }
}

/// What a test leaves stays there to be looked at, and no more costs a look every few seconds: with the repositories of all
/// tests before it the machine would be busy with nothing else.
impl Drop for Place {
    fn drop(&mut self) {
        let Ok(names) = tests::objects::names(&self.cluster, &self.namespace, "resticrepository") else {
            return;
        };
        let seldom = json!({ "spec": { "refreshInterval": "12h" } });
        for name in names {
            let object = format!("resticrepository/{name}");
            tests::objects::merge(&self.cluster, &self.namespace, &object, &seldom).ok();
        }
    }
}

/// Whether a condition was written for the spec as it is now.
fn is_current(object: &Value, condition: &Value) -> bool {
    condition["observedGeneration"] == object["metadata"]["generation"]
}

/// A condition of an object; null when there is none.
pub fn condition(object: &Value, type_: &str) -> Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c["type"] == type_)
        .unwrap_or_default()
}

/// A repository on the S3 server, by its first or second address.
pub fn s3(address: usize, name: &str) -> String {
    format!("s3:{}/{name}", bed().servers().s3_urls()[address])
}

/// A repository on the REST server.
pub fn rest(name: &str) -> String {
    format!("rest:{}/{name}/", bed().servers().rest_url())
}

/// A repository on the REST server, reached through the proxy that can make it fail.
pub fn faulty(name: &str) -> String {
    format!("rest:{}/{name}/", bed().servers().faulty_rest_url())
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// The CLI's JSON.
pub fn fleet_json(arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    serde_json::from_str(&fleet::shell_ok(bed(), "fleet", &all).unwrap()).unwrap()
}

/// Every file below a folder with its content.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let name = entry
                    .path()
                    .strip_prefix(dir)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}
