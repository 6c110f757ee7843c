//! One whole Kubernetes cluster of one node, in a network namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::address::Plan;
use crate::pki::{self, Authority, Names};
use crate::process::{self, Daemon, attempt, run};
use crate::tools::Workspace;
use crate::{images, network};

/// Token of the admin's kubeconfig; the cluster lives on this machine only.
const ADMIN_TOKEN: &str = "test-bed-admin";

/// A cluster of a bed.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    /// Position in the bed: decides its addresses.
    pub number: u8,
    pub plan: Plan,
    /// Everything that the cluster keeps.
    pub dir: PathBuf,
    pub workspace: Workspace,
}

impl Cluster {
    /// Address of the node, the API server and NodePorts.
    #[must_use]
    pub fn node_ip(&self) -> String {
        self.plan.node(self.number)
    }

    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// A client with the rights of an administrator.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// kubectl against this cluster; an error carries what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let kubeconfig = self.kubeconfig();
        let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap_or_default()];
        all.extend_from_slice(arguments);
        run(&self.workspace.program("kubectl").to_string_lossy(), &all)
    }

    /// Applies manifests given as text.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), manifests)?;
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            &file.path().to_string_lossy(),
        ])
    }

    /// Cuts the cluster off from everything outside it.
    pub fn partition(&self) -> anyhow::Result<()> {
        network::set_link(self.plan, &self.name, false)
    }

    /// Ends a partition.
    pub fn heal(&self) -> anyhow::Result<()> {
        network::set_link(self.plan, &self.name, true)?;
        network::route(&self.plan.pods(self.number), &self.node_ip())
    }

    fn daemon(&self, name: &str) -> Daemon {
        Daemon::new(&self.dir, name)
    }

    fn start_daemon(&self, name: &str, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        self.daemon(name)
            .start(Some(&self.plan.netns(&self.name)), program, arguments, &[])
    }

    /// Starts everything and waits until the node is ready.
    pub fn up(&self, archives: &[PathBuf], fsync: bool) -> anyhow::Result<()> {
        fs::create_dir_all(self.dir.join("cni"))?;
        self.write_pki()?;
        network::create_node(self.plan, &self.name, &[self.node_ip()])?;
        network::route(&self.plan.pods(self.number), &self.node_ip())?;
        self.start_containerd()?;
        self.start_control_plane(fsync)?;
        images::load(&self.socket(), &self.dir.join("loaded"), archives)?;
        self.start_node()?;
        self.wait(Duration::from_secs(60), "node ready", || {
            let ready = self.kubectl(&[
                "get",
                "nodes",
                "-o",
                "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}",
            ]);
            ready.is_ok_and(|status| status == "True")
        })?;
        self.apply(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: standard\n  annotations: {storageclass.kubernetes.io/is-default-class: \"true\"}\nprovisioner: kubernetes.io/host-path\n",
        )?;
        Ok(())
    }

    fn write_pki(&self) -> anyhow::Result<()> {
        let pki = self.dir.join("pki");
        let authority = Authority::create(&pki, "ca")?;
        let addresses = vec![
            self.node_ip(),
            "127.0.0.1".to_owned(),
            self.plan.api_service(self.number),
        ];
        let dns = vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()];
        authority.issue(
            "api",
            Names {
                common_name: "kube-apiserver".into(),
                dns,
                addresses,
                ..Names::default()
            },
        )?;
        let organization = Some("system:masters".to_owned());
        authority.issue(
            "kubelet-client",
            Names {
                common_name: "apiserver".into(),
                organization,
                ..Names::default()
            },
        )?;
        pki::service_account_key(&pki)?;
        fs::write(
            pki.join("tokens.csv"),
            format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
        )?;
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": self.name,
            "clusters": [{ "name": self.name, "cluster": {
                "server": format!("https://{}:6443", self.node_ip()),
                "certificate-authority": pki.join("ca.crt") } }],
            "users": [{ "name": "admin", "user": { "token": ADMIN_TOKEN } }],
            "contexts": [{ "name": self.name, "context": { "cluster": self.name, "user": "admin" } }],
        });
        fs::write(self.kubeconfig(), kubeconfig.to_string())?;
        Ok(())
    }

    fn start_control_plane(&self, fsync: bool) -> anyhow::Result<()> {
        let (dir, pki) = (self.dir.display(), self.dir.join("pki"));
        let pki = pki.display();
        let mut etcd = arguments(&format!(
            "--name {} --data-dir {dir}/etcd --log-level warn",
            self.name
        ));
        if !fsync {
            etcd.push("--unsafe-no-fsync".to_owned());
        }
        self.start_daemon("etcd", &self.workspace.program("etcd"), &etcd)?;
        let api = format!(
            "--etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --bind-address=0.0.0.0 --advertise-address={ip} \
             --tls-cert-file={pki}/api.crt --tls-private-key-file={pki}/api.key --cert-dir={pki} --client-ca-file={pki}/ca.crt \
             --service-account-issuer=https://kubernetes.default.svc --service-account-key-file={pki}/sa.pub \
             --service-account-signing-key-file={pki}/sa.key --token-auth-file={pki}/tokens.csv --authorization-mode=Node,RBAC \
             --service-cluster-ip-range={services} --allow-privileged=true --kubelet-preferred-address-types=InternalIP \
             --kubelet-client-certificate={pki}/kubelet-client.crt --kubelet-client-key={pki}/kubelet-client.key \
             --audit-log-path={dir}/audit.log --audit-policy-file={dir}/audit.yaml --audit-log-maxsize=200 --audit-log-maxbackup=2",
            ip = self.node_ip(),
            services = self.plan.services(self.number),
        );
        fs::write(self.dir.join("audit.yaml"), AUDIT)?;
        self.start_daemon(
            "apiserver",
            &self.workspace.program("kube-apiserver"),
            &arguments(&api),
        )?;
        self.wait(Duration::from_secs(60), "API server ready", || {
            self.kubectl(&["get", "--raw", "/readyz"])
                .is_ok_and(|answer| answer == "ok")
        })?;
        let kubeconfig = self.kubeconfig();
        let kubeconfig = kubeconfig.display();
        let manager = format!(
            "--kubeconfig {kubeconfig} --service-account-private-key-file={pki}/sa.key --root-ca-file={pki}/ca.crt \
             --leader-elect=false --enable-hostpath-provisioner=true --controllers=* --kube-api-qps 200 --kube-api-burst 400"
        );
        self.start_daemon(
            "controller-manager",
            &self.workspace.program("kube-controller-manager"),
            &arguments(&manager),
        )?;
        let scheduler = format!("--kubeconfig {kubeconfig} --leader-elect=false");
        self.start_daemon(
            "scheduler",
            &self.workspace.program("kube-scheduler"),
            &arguments(&scheduler),
        )
    }

    fn start_containerd(&self) -> anyhow::Result<()> {
        let dir = self.dir.display();
        let cni = serde_json::json!({
            "cniVersion": "1.0.0", "name": self.name, "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": { "type": "host-local", "dataDir": self.dir.join("cni-data"),
                    "ranges": [[{ "subnet": self.plan.pods(self.number) }]], "routes": [{ "dst": "0.0.0.0/0" }] } }],
        });
        fs::write(self.dir.join("cni/10-bridge.conflist"), cni.to_string())?;
        // restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox would fail to start.
        let config = format!(
            "version = 2\nroot = \"{dir}/containerd\"\nstate = \"{dir}/containerd-state\"\n[grpc]\n  address = \"{dir}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{pause}\"\n  restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"{dir}/cni\"\n",
            pause = images::PAUSE
        );
        fs::write(self.dir.join("containerd.toml"), config)?;
        let file = self.dir.join("containerd.toml").to_string_lossy().into_owned();
        self.start_daemon("containerd", Path::new("containerd"), &["-c".to_owned(), file])?;
        self.wait(Duration::from_secs(20), "containerd", || {
            run("ctr", &["-a", &self.socket().to_string_lossy(), "version"]).is_ok()
        })
    }

    /// Name of the node's object.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("node-{}", self.name)
    }

    fn start_node(&self) -> anyhow::Result<()> {
        self.start_kubelet()?;
        let proxy = format!(
            "--kubeconfig {dir}/kubeconfig --hostname-override {node} --proxy-mode nftables --cluster-cidr {pods} \
             --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0",
            dir = self.dir.display(),
            node = self.node_name(),
            pods = self.plan.pods(self.number),
        );
        self.start_daemon("proxy", &self.workspace.program("kube-proxy"), &arguments(&proxy))
    }

    /// Ends the kubelet; containers go on.
    pub fn stop_kubelet(&self) {
        self.daemon("kubelet").stop(Duration::from_secs(5));
    }

    /// Starts the kubelet, which registers its node if it is not there.
    pub fn start_kubelet(&self) -> anyhow::Result<()> {
        let dir = self.dir.display();
        let kubelet = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.dir.join("pki/ca.crt") } },
            "authorization": { "mode": "Webhook" },
            "readOnlyPort": 0, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
            "failSwapOn": false, "containerRuntimeEndpoint": format!("unix://{dir}/containerd.sock"),
            "podLogsDir": self.dir.join("podlogs"), "resolvConf": "/dev/null", "maxPods": 500,
            // Images that are removed when the disk is nearly full could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "1Mi" },
        });
        fs::write(self.dir.join("kubelet.json"), kubelet.to_string())?;
        let kubelet = format!(
            "--config {dir}/kubelet.json --kubeconfig {dir}/kubeconfig --root-dir {dir}/kubelet --hostname-override {node} \
             --node-ip {ip} --cert-dir {dir}/kubelet-pki",
            node = self.node_name(),
            ip = self.node_ip(),
        );
        self.start_daemon(
            "kubelet",
            &self.workspace.program("kubelet"),
            &arguments(&kubelet),
        )
    }

    pub(crate) fn wait(&self, limit: Duration, what: &str, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        while !ready() {
            if Instant::now() > end {
                bail!(
                    "cluster {}: {what} not reached within {limit:?}; see {}/*.log",
                    self.name,
                    self.dir.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Daemons that should run and do not.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        const ALL: &[&str] = &[
            "etcd",
            "apiserver",
            "controller-manager",
            "scheduler",
            "containerd",
            "kubelet",
            "proxy",
        ];
        ALL.iter()
            .filter(|name| self.daemon(name).pid().is_none())
            .map(|name| (*name).to_owned())
            .collect()
    }

    /// Ends everything that the cluster started, also what a crash has left.
    pub fn down(&self) {
        // The provisioner keeps volumes outside the cluster's folder.
        let volumes = self.kubectl(&[
            "get",
            "pv",
            "--request-timeout=3s",
            "-o",
            "jsonpath={.items[*].spec.hostPath.path}",
        ]);
        for volume in volumes
            .unwrap_or_default()
            .split_whitespace()
            .filter(|v| v.starts_with("/tmp/hostpath_pv/"))
        {
            let _ = fs::remove_dir_all(volume);
        }
        for name in ["kubelet", "proxy", "scheduler", "controller-manager"] {
            self.daemon(name).stop(Duration::from_secs(5));
        }
        for pid in process::using(&self.dir) {
            // A shim holds its container as a child: both have to go.
            let children = run("pgrep", &["-P", &pid.to_string()]).unwrap_or_default();
            for child in children.lines().filter_map(|c| c.trim().parse().ok()) {
                process::signal(child, "KILL");
            }
            process::signal(pid, "KILL");
        }
        self.remove_pod_networks();
        for name in ["apiserver", "etcd", "containerd"] {
            self.daemon(name).stop(Duration::from_secs(5));
        }
        for daemon in Daemon::all(&self.dir) {
            daemon.stop(Duration::from_secs(1));
        }
        self.unmount();
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Network namespaces of pods: the container runtime removes them only with the pod, and may have been killed. They
    /// are known by their address.
    fn remove_pod_networks(&self) {
        let pods = self.plan.pods(self.number);
        let prefix = pods.trim_end_matches("0.0/16");
        let all = run("ip", &["netns", "list"]).unwrap_or_default();
        for name in all
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| name.starts_with("cni-"))
        {
            let address =
                run("ip", &["-n", name, "-4", "-o", "addr", "show", "dev", "eth0"]).unwrap_or_default();
            if address.contains(&format!("inet {prefix}")) {
                attempt("ip", &["netns", "del", name]);
            }
        }
    }

    fn unmount(&self) {
        let prefix = self.dir.to_string_lossy().into_owned();
        for _ in 0..3 {
            let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
            let mut points: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(1)).collect();
            points.retain(|point| point.starts_with(&prefix));
            if points.is_empty() {
                return;
            }
            for point in points.iter().rev() {
                attempt("umount", &["-l", point]);
            }
        }
    }

    /// Ids of the processes of a container, by the label that containerd keeps.
    pub fn container_pids(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<Vec<u32>> {
        let socket = self.socket().to_string_lossy().into_owned();
        let filter = format!(
            "labels.\"io.kubernetes.pod.namespace\"=={namespace},labels.\"io.kubernetes.pod.name\"=={pod},labels.\"io.kubernetes.container.name\"=={container}"
        );
        let ids = run(
            "ctr",
            &["-a", &socket, "-n", "k8s.io", "containers", "list", "-q", &filter],
        )?;
        let mut pids = Vec::new();
        for id in ids.lines() {
            let table = run("ctr", &["-a", &socket, "-n", "k8s.io", "tasks", "ps", id]).unwrap_or_default();
            pids.extend(
                table
                    .lines()
                    .skip(1)
                    .filter_map(|l| l.split_whitespace().next()?.parse::<u32>().ok()),
            );
        }
        Ok(pids)
    }

    /// Sends a signal to every process of a container.
    pub fn signal_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        let pids = self.container_pids(namespace, pod, container)?;
        if pids.is_empty() {
            bail!(
                "container {container} of pod {namespace}/{pod} in cluster {} has no process",
                self.name
            );
        }
        pids.into_iter().for_each(|pid| process::signal(pid, name));
        Ok(())
    }

    /// Sends a signal to the kubelet: while it stands still, nobody hears of its pods, which go on.
    pub fn signal_kubelet(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.daemon("kubelet").pid().context("no kubelet")?;
        process::signal(pid, name);
        Ok(())
    }

    /// Requests that the API server answered, from its audit log, for one user agent or ServiceAccount.
    pub fn audit(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.dir.join("audit.log")).context("no audit log")?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Runs kubectl with input, such as `exec -i`.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.workspace.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }
}

/// Only requests of ServiceAccounts of the product are of interest, and only their metadata.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n\
- level: Metadata\n  users: [\"system:serviceaccount:restic-fleet-system:fleet-spoke\"]\n- level: None\n";

fn arguments(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
