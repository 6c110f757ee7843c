//! A Prometheus that reads the operators of a cluster and judges them by the rules of deploy/alerts.yaml.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Cluster;

use crate::support::{SOON, bed, keep_logs};

/// What the rules wait for or look back on, and what they do here: nothing else of them is changed.
const SHORTER: [(&str, &str); 8] = [
    ("[1h]", "[20s]"),
    ("[15m]", "[20s]"),
    ("offset 1h", "offset 20s"),
    ("offset 15m", "offset 20s"),
    ("> 7200", "> 15"),
    // Of the hub: a wait for the lock, the age of its backup, and a pause.
    ("> 21600", "> 5"),
    ("> 172800", "> 15"),
    ("> 86400", "> 5"),
];

/// Rules as they are shipped, with short times.
pub fn rules() -> String {
    let shipped = std::fs::read_to_string(bed().workspace.root.join("deploy/alerts.yaml")).unwrap();
    let mut rules = String::new();
    for line in shipped.lines().filter(|line| !line.trim().starts_with("for:")) {
        rules.push_str(line);
        rules.push('\n');
    }
    for (long, short) in SHORTER {
        assert!(rules.contains(long), "{long} is in no rule");
        rules = rules.replace(long, short);
    }
    rules
}

/// Names of all alerts.
pub fn names() -> Vec<String> {
    let names = rules();
    let names = names
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

pub struct Prometheus {
    server: Child,
    url: String,
    cluster: Cluster,
    /// Where the hub runs, if it is read too.
    hub: Option<Cluster>,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Begins to read the operators of a cluster. Each test has a port of its own.
    pub fn start(cluster: Cluster, port: u16) -> Prometheus {
        Prometheus::reading(cluster, None, port)
    }

    /// The same, and the hub.
    pub fn with_hub(cluster: Cluster, hub: Cluster, port: u16) -> Prometheus {
        Prometheus::reading(cluster, Some(hub), port)
    }

    fn reading(cluster: Cluster, hub: Option<Cluster>, port: u16) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        // JSON is YAML.
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [{ "job_name": "fleet-spoke", "file_sd_configs": [{ "files": ["targets.json"], "refresh_interval": "1s" }] }],
        });
        std::fs::write(dir.path().join("alerts.yaml"), rules()).unwrap();
        std::fs::write(dir.path().join("prometheus.yaml"), config.to_string()).unwrap();
        let address = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let server = Command::new("prometheus")
            .arg("--config.file=prometheus.yaml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is in the PATH: make bootstrap");
        let this = Prometheus {
            server,
            url: format!("http://{address}"),
            cluster,
            hub,
            dir,
        };
        this.until("the operator's series", || {
            let up = this.ask("query?query=sum(fleet_leader)")?;
            up["data"]["result"][0]["value"][1]
                .as_str()
                .filter(|leaders| *leaders == "1")
                .map(drop)
        });
        this
    }

    /// The operators and hubs that run now.
    fn discover(&self) {
        let Ok(mut pods) = self.cluster.pods_of("fleet-spoke") else {
            return;
        };
        if let Some(hub) = &self.hub {
            let Ok(hubs) = hub.pods_of("fleet-hub") else {
                return;
            };
            pods.extend(hubs);
        }
        let addresses = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str());
        let targets: Vec<String> = addresses.map(|address| format!("{address}:8080")).collect();
        let (file, new) = (self.dir.path().join("targets.json"), self.dir.path().join("new"));
        std::fs::write(&new, json!([{ "targets": targets }]).to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn ask(&self, what: &str) -> Option<Value> {
        let url = format!("{}/api/v1/{what}", self.url);
        let output = Command::new("curl")
            .args(["-sfg", "--max-time", "5", &url])
            .output();
        serde_json::from_slice(&output.ok()?.stdout).ok()
    }

    /// Labels of an alert that fires; `name` is that of a resource, "" for alerts that are of none. `None` if Prometheus
    /// does not answer.
    fn firing(&self, alert: &str, namespace: &str, name: &str) -> Option<bool> {
        let all = self.ask("alerts")?;
        let all = all["data"]["alerts"].as_array()?;
        Some(all.iter().any(|one| {
            let labels = &one["labels"];
            let is_of = name.is_empty() || (labels["namespace"] == namespace && labels["name"] == name);
            one["state"] == "firing" && labels["alertname"] == alert && is_of
        }))
    }

    pub fn until_raised(&self, alert: &str, namespace: &str, name: &str) {
        self.until(&format!("{alert} of {namespace}/{name}"), || {
            self.firing(alert, namespace, name).filter(|fires| *fires)
        });
    }

    pub fn until_ended(&self, alert: &str, namespace: &str, name: &str) {
        self.until(&format!("the end of {alert} of {namespace}/{name}"), || {
            self.firing(alert, namespace, name).filter(|fires| !fires)
        });
    }

    pub fn assert_quiet(&self, alert: &str, namespace: &str, name: &str) {
        let fires = self.firing(alert, namespace, name).expect("Prometheus answers");
        assert!(!fires, "{alert} of {namespace}/{name} before its cause");
    }

    fn until<T>(&self, what: &str, holds: impl Fn() -> Option<T>) -> T {
        let end = Instant::now() + 2 * SOON;
        loop {
            self.discover();
            if let Some(found) = holds() {
                return found;
            }
            if Instant::now() > end {
                keep_logs(bed());
                panic!(
                    "{what} did not come; alerts are {:#}",
                    self.ask("alerts").unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
