//! A PostgreSQL server in a pod, and tables whose rows show whether a copy of them is whole.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fleet;
use crate::images::postgresql::{POSTGRESQL, USER};
use crate::tools::Workspace;

/// Accounts that the writer moves money between: rows in many pages of a table, which add up to nothing.
const ACCOUNTS: u32 = 20_000;

/// One transaction writes an order, three items, two accounts and the totals.
const TABLES: &str = "
CREATE TABLE orders (id bigint PRIMARY KEY, body text NOT NULL, digest text NOT NULL);
CREATE TABLE items (order_id bigint REFERENCES orders, number int, PRIMARY KEY (order_id, number));
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, note text NOT NULL);
CREATE TABLE totals (orders bigint NOT NULL, items bigint NOT NULL);
INSERT INTO accounts SELECT id, 0, repeat(md5(id::text), 16) FROM generate_series(0, 19999) id;
INSERT INTO totals VALUES (0, 0);
CREATE PROCEDURE trade(transactions int) LANGUAGE plpgsql AS $$
DECLARE
  next bigint;
  text text;
BEGIN
  FOR i IN 1..transactions LOOP
    UPDATE totals SET orders = orders + 1, items = items + 3 RETURNING orders INTO next;
    text := repeat(md5(next::text), 20);
    INSERT INTO orders VALUES (next, text, md5(text));
    INSERT INTO items SELECT next, number FROM generate_series(1, 3) number;
    UPDATE accounts SET balance = balance + next WHERE id = next * 7919 % 20000;
    UPDATE accounts SET balance = balance - next WHERE id = (next * 104729 + 1) % 20000;
    COMMIT;
    PERFORM pg_sleep(0.002);
  END LOOP;
END $$;
";

const STATE: &str = "
SELECT json_build_object(
  'orders', (SELECT count(*) FROM orders),
  'newest', (SELECT coalesce(max(id), 0) FROM orders),
  'changed', (SELECT count(*) FROM orders WHERE md5(body) <> digest),
  'items', (SELECT count(*) FROM items JOIN orders ON orders.id = order_id),
  'accounts', (SELECT count(*) FROM accounts),
  'balance', (SELECT sum(balance) FROM accounts),
  'totals', (SELECT json_build_array(orders, items) FROM totals))
";

/// A server in the pod `name`.
#[derive(Clone, Debug)]
pub struct Database {
    cluster: Cluster,
    namespace: String,
    name: String,
}

/// Transactions without a pause, one after the other; ended when it is dropped.
pub struct Writer {
    database: Database,
    child: Child,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The server goes on for a client that is gone.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL trade%'";
        let _ = self.database.sql(end);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Database {
    /// Starts a server with these environment variables and with claims at these paths, and waits until it answers. The
    /// image has to be loaded.
    ///
    /// # Errors
    /// It does not answer within two minutes.
    pub fn start(
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        environment: &[(&str, &str)],
        claims: &[(&str, &str)],
    ) -> anyhow::Result<Database> {
        let environment: Vec<Value> = environment
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        let mounts: Vec<Value> = claims
            .iter()
            .map(|(claim, path)| json!({ "name": claim, "mountPath": path }))
            .collect();
        let volumes: Vec<Value> = claims
            .iter()
            .map(|(claim, _)| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } }))
            .collect();
        let answers = ["pg_isready", "--username=postgres", "--quiet"];
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "securityContext": { "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER },
                "containers": [{ "name": "postgres", "image": POSTGRESQL, "imagePullPolicy": "IfNotPresent",
                    "args": ["-c", "shared_buffers=32MB"], "env": environment, "volumeMounts": mounts,
                    "readinessProbe": { "exec": { "command": answers }, "periodSeconds": 1 } }],
                "volumes": volumes } });
        cluster.apply(&pod.to_string())?;
        let database = Database {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let pod = format!("pod/{name}");
        let limit = Duration::from_secs(120);
        if let Err(error) = fleet::wait(cluster, namespace, &pod, "condition=Ready", limit) {
            let log = cluster.kubectl(&["logs", "-n", namespace, name, "--tail=20"]);
            return Err(error.context(log.unwrap_or_default()));
        }
        Ok(database)
    }

    /// Runs a command in the server's container.
    ///
    /// # Errors
    /// It fails; the error has what it printed.
    pub fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        let exec = ["exec", "-n", &self.namespace, &self.name, "-c", "postgres", "--"];
        self.cluster.kubectl(&[&exec[..], command].concat())
    }

    /// Runs SQL in the database `orders`; returns the rows.
    ///
    /// # Errors
    /// A statement fails.
    pub fn sql(&self, sql: &str) -> anyhow::Result<String> {
        self.exec(&psql("orders", sql)).map(|rows| rows.trim().to_owned())
    }

    /// Makes the tables in a database of their own, and a role `backup` with a password that may read all of it.
    ///
    /// # Errors
    /// They are there already.
    pub fn create(&self, password: &str) -> anyhow::Result<()> {
        for sql in [
            &*format!("CREATE ROLE backup LOGIN PASSWORD '{password}'"),
            "GRANT pg_read_all_data TO backup",
            "CREATE DATABASE orders",
        ] {
            self.exec(&psql("postgres", sql))?;
        }
        self.sql(TABLES).map(drop)
    }

    /// Address of the pod.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn address(&self) -> anyhow::Result<String> {
        let address = ["-o", "jsonpath={.status.podIP}"];
        let get = ["get", "-n", &self.namespace, "pod", &self.name];
        self.cluster.kubectl(&[&get[..], &address].concat())
    }

    /// Begins to write, and waits for the first orders. Ends by itself after some minutes.
    ///
    /// # Errors
    /// There are no tables, or nothing is written.
    pub fn write(&self) -> anyhow::Result<Writer> {
        let before = self.newest()?;
        let kubeconfig = self.cluster.kubeconfig();
        let child = Command::new(self.cluster.workspace.program("kubectl"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["exec", "-n", &self.namespace, &self.name, "-c", "postgres", "--"])
            .args(psql("orders", "CALL trade(100000)"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run kubectl")?;
        let writer = Writer {
            database: self.clone(),
            child,
        };
        self.until_newer(before)?;
        Ok(writer)
    }

    /// Waits until more orders are committed than these.
    ///
    /// # Errors
    /// Nothing is written.
    pub fn until_newer(&self, than: u64) -> anyhow::Result<u64> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let newest = self.newest()?;
            if newest > than {
                return Ok(newest);
            }
            ensure!(Instant::now() < end, "nothing is written to {}", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The newest order that is committed.
    ///
    /// # Errors
    /// There are no tables.
    pub fn newest(&self) -> anyhow::Result<u64> {
        let newest = self.sql("SELECT coalesce(max(id), 0) FROM orders")?;
        newest.parse().with_context(|| format!("no number: {newest}"))
    }

    /// Digest of all orders up to this one.
    ///
    /// # Errors
    /// There are no tables.
    pub fn digest(&self, newest: u64) -> anyhow::Result<String> {
        let rows = "md5(string_agg(id || ':' || body, ',' ORDER BY id))";
        self.sql(&format!("SELECT {rows} FROM orders WHERE id <= {newest}"))
    }

    /// Checks that every transaction is there whole or not at all, up to the newest order, and that each page and index is
    /// sound. Returns the newest order.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> anyhow::Result<u64> {
        self.exec(&[
            "pg_amcheck",
            "--username=postgres",
            "--all",
            "--install-missing",
            "--heapallindexed",
        ])?;
        let text = self.sql(STATE)?;
        let state: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let newest = state["newest"].as_u64().with_context(|| text.clone())?;
        let whole = json!({ "orders": newest, "newest": newest, "changed": 0, "items": 3 * newest, "accounts": ACCOUNTS,
                            "balance": 0, "totals": [newest, 3 * newest] });
        ensure!(state == whole, "the rows are {state} instead of {whole}");
        Ok(newest)
    }
}

fn psql<'a>(database: &'a str, sql: &'a str) -> [&'a str; 8] {
    [
        "psql",
        "--username=postgres",
        "--no-psqlrc",
        "-qAt",
        "--set=ON_ERROR_STOP=1",
        database,
        "--command",
        sql,
    ]
}

/// An example of deploy/examples as it is.
///
/// # Errors
/// There is no such file, or it is no YAML.
pub fn example(workspace: &Workspace, file: &str) -> anyhow::Result<Value> {
    let path = workspace.root.join("deploy/examples").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
}
