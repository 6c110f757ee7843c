//! Storage servers that clusters share, each in a network namespace of its own so that it can be cut off.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::address::Plan;
use crate::network;
use crate::pki::{Authority, Names};
use crate::process::{Daemon, run};
use crate::proxy::control::Control;
use crate::tools::Workspace;

/// Name of the one bucket.
pub const BUCKET: &str = "fleet";
const S3_USER: &str = "fleet";
const S3_PASSWORD: &str = "fleet-test-secret";
const REST_USER: &str = "fleet";
const REST_PASSWORD: &str = "rest-test-secret";

const SSH_PORT: u16 = 2222;

/// The storage servers of a bed.
#[derive(Clone, Debug)]
pub struct Servers {
    plan: Plan,
    dir: PathBuf,
    workspace: Workspace,
}

impl Servers {
    #[must_use]
    pub fn new(plan: Plan, dir: &Path, workspace: &Workspace) -> Servers {
        Servers {
            plan,
            dir: dir.join("servers"),
            workspace: workspace.clone(),
        }
    }

    /// Logs, keys and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bucket under two addresses: two URLs, one repository.
    #[must_use]
    pub fn s3_urls(&self) -> [String; 2] {
        [100, 101].map(|host| format!("http://{}:9000/{BUCKET}", self.plan.wan(host)))
    }

    /// Access key and secret.
    #[must_use]
    pub fn s3_credentials(&self) -> (&'static str, &'static str) {
        (S3_USER, S3_PASSWORD)
    }

    /// `https://host:port` of restic's REST server.
    #[must_use]
    pub fn rest_url(&self) -> String {
        format!("https://{}:8000", self.plan.wan(110))
    }

    /// User and password of the REST server.
    #[must_use]
    pub fn rest_credentials(&self) -> (&'static str, &'static str) {
        (REST_USER, REST_PASSWORD)
    }

    /// Certificate of the authority behind the REST server.
    #[must_use]
    pub fn rest_ca(&self) -> PathBuf {
        self.dir.join("pki/rest-ca.crt")
    }

    /// The REST server's repositories through a proxy that can make it fail: `http://host:port`.
    #[must_use]
    pub fn faulty_rest_url(&self) -> String {
        format!("http://{}:8002", self.plan.wan(110))
    }

    /// The bucket through a proxy that can make it fail, under both addresses.
    #[must_use]
    pub fn faulty_s3_urls(&self) -> [String; 2] {
        [100, 101].map(|host| format!("http://{}:9002/{BUCKET}", self.plan.wan(host)))
    }

    /// Rules and log of the proxy before the REST server.
    #[must_use]
    pub fn rest_proxy(&self) -> Control {
        Control::at(&self.dir.join("rest-proxy.sock"))
    }

    /// Rules and log of the proxy before S3.
    #[must_use]
    pub fn s3_proxy(&self) -> Control {
        Control::at(&self.dir.join("s3-proxy.sock"))
    }

    /// Repositories of the REST server as files.
    #[must_use]
    pub fn rest_data(&self) -> PathBuf {
        self.dir.join("rest")
    }

    /// The REST server's access log.
    #[must_use]
    pub fn rest_log(&self) -> PathBuf {
        self.dir.join("rest.log")
    }

    /// A repository on the SSH server, in a folder of its own: `sftp://user@host:port//path`.
    #[must_use]
    pub fn sftp_url(&self, name: &str) -> String {
        let folder = self.dir.join("ssh").join(name);
        format!(
            "sftp://root@{}:{SSH_PORT}/{}",
            self.plan.wan(110),
            folder.display()
        )
    }

    /// The private key that the SSH server accepts, and the line of its host key for known_hosts.
    ///
    /// # Errors
    /// The bed is not up.
    pub fn ssh_files(&self) -> anyhow::Result<(String, String)> {
        let dir = self.dir.join("ssh");
        let host = fs::read_to_string(dir.join("host.pub"))?;
        let address = format!("[{}]:{SSH_PORT}", self.plan.wan(110));
        Ok((fs::read_to_string(dir.join("id"))?, format!("{address} {host}")))
    }

    /// sshd with keys of its own, which serves files as root and nothing else.
    fn start_sshd(&self) -> anyhow::Result<()> {
        let dir = self.dir.join("ssh");
        fs::create_dir_all(&dir)?;
        // sshd wants its folder for the time before a login, on every machine the same.
        fs::create_dir_all("/run/sshd")?;
        for name in ["host", "id"] {
            if !dir.join(name).exists() {
                let file = dir.join(name);
                run(
                    "ssh-keygen",
                    &["-q", "-t", "ed25519", "-N", "", "-f", &file.to_string_lossy()],
                )?;
            }
        }
        let path = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "Port {SSH_PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nForceCommand internal-sftp\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\n",
            path("host"),
            path("id.pub")
        );
        fs::write(dir.join("sshd_config"), config)?;
        let arguments = ["-D", "-e", "-f", &path("sshd_config")].map(str::to_owned);
        let netns = self.plan.netns("rest");
        Daemon::new(&self.dir, "sshd").start(Some(&netns), Path::new("/usr/sbin/sshd"), &arguments, &[])
    }

    /// Starts all and makes the bucket.
    pub fn up(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.dir.join("rest"))?;
        fs::create_dir_all(self.dir.join("s3").join(BUCKET))?;
        network::create_node(self.plan, "s3", &[self.plan.wan(100), self.plan.wan(101)])?;
        network::create_node(self.plan, "rest", &[self.plan.wan(110)])?;
        self.start()?;
        let end = Instant::now() + Duration::from_secs(20);
        let health = format!("http://{}:9000/minio/health/live", self.plan.wan(100));
        while run("curl", &["-sf", "-o", "/dev/null", &health]).is_err()
            || !self.rest_answers()
            || self.rest_proxy().set(&[]).is_err()
            || self.s3_proxy().set(&[]).is_err()
            || TcpStream::connect((self.plan.wan(110), SSH_PORT)).is_err()
        {
            if Instant::now() > end {
                bail!(
                    "the storage servers did not start; see {}/*.log",
                    self.dir.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn start(&self) -> anyhow::Result<()> {
        let netns = |node: &str| self.plan.netns(node);
        // A folder made beforehand is a bucket to minio.
        let s3 = [
            "server",
            "--address",
            ":9000",
            "--console-address",
            "127.0.0.1:9001",
            "s3",
        ]
        .map(str::to_owned);
        let env = [
            ("MINIO_ROOT_USER", S3_USER),
            ("MINIO_ROOT_PASSWORD", S3_PASSWORD),
            ("HOME", &*self.dir.to_string_lossy()),
        ];
        Daemon::new(&self.dir, "s3").start(
            Some(&netns("s3")),
            &self.workspace.program("minio"),
            &s3,
            &env,
        )?;

        let pki = self.dir.join("pki");
        let names = Names {
            common_name: "rest".into(),
            addresses: vec![self.plan.wan(110)],
            ..Names::default()
        };
        Authority::create(&pki, "rest-ca")?.issue("rest", names)?;
        // The server takes bcrypt and SHA-1 hashes.
        let hash = run(
            "sh",
            &[
                "-c",
                "printf %s \"$0\" | openssl dgst -sha1 -binary | base64",
                REST_PASSWORD,
            ],
        )?;
        fs::write(
            self.dir.join("htpasswd"),
            format!("{REST_USER}:{{SHA}}{}\n", hash.trim()),
        )?;
        let rest = [
            "--listen",
            ":8000",
            "--path",
            "rest",
            "--htpasswd-file",
            "htpasswd",
            "--tls",
            "--tls-cert",
            "pki/rest.crt",
            "--tls-key",
            "pki/rest.key",
            "--log",
            "-",
        ]
        .map(str::to_owned);
        let program = self.workspace.program("rest-server");
        Daemon::new(&self.dir, "rest").start(Some(&netns("rest")), &program, &rest, &[])?;
        // The same files without TLS, for the proxy only.
        let plain = [
            "--listen",
            "127.0.0.1:8003",
            "--path",
            "rest",
            "--htpasswd-file",
            "htpasswd",
        ]
        .map(str::to_owned);
        self.start_sshd()?;
        Daemon::new(&self.dir, "rest-plain").start(Some(&netns("rest")), &program, &plain, &[])?;
        self.start_proxy("rest", "0.0.0.0:8002", "127.0.0.1:8003")?;
        self.start_proxy("s3", "0.0.0.0:9002", "127.0.0.1:9000")
    }

    fn start_proxy(&self, node: &str, listen: &str, upstream: &str) -> anyhow::Result<()> {
        let name = format!("{node}-proxy");
        let socket = format!("{name}.sock");
        let arguments = [
            "proxy",
            "--listen",
            listen,
            "--upstream",
            upstream,
            "--control",
            &socket,
        ]
        .map(str::to_owned);
        let program = self.workspace.testbed()?;
        Daemon::new(&self.dir, &name).start(Some(&self.plan.netns(node)), &program, &arguments, &[])
    }

    /// Serves a folder of the bucket by rclone's REST server as well; returns its URL.
    pub fn serve_by_rclone(&self, folder: &str) -> anyhow::Result<String> {
        let address = format!("{}:8001", self.plan.wan(1));
        let remote = format!(":s3:{BUCKET}/{folder}");
        let arguments = ["serve", "restic", "--addr", &address, &remote].map(str::to_owned);
        let endpoint = format!("http://{}:9000", self.plan.wan(100));
        let env = [
            // In memory only.
            ("RCLONE_CONFIG", ""),
            // Where one is set for other programs, Debian's rclone does not start.
            ("AWS_CA_BUNDLE", ""),
            ("RCLONE_S3_PROVIDER", "Minio"),
            ("RCLONE_S3_ENDPOINT", &endpoint),
            ("RCLONE_S3_ACCESS_KEY_ID", S3_USER),
            ("RCLONE_S3_SECRET_ACCESS_KEY", S3_PASSWORD),
        ];
        let program = Path::new("rclone");
        Daemon::new(&self.dir, "rclone").start(None, program, &arguments, &env)?;
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            if Instant::now() > end {
                bail!("rclone does not listen; see {}/rclone.log", self.dir.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(format!("rest:http://{address}/"))
    }

    fn rest_answers(&self) -> bool {
        let user = format!("{REST_USER}:{REST_PASSWORD}");
        let ca = self.rest_ca();
        let code = run(
            "curl",
            &[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-u",
                &user,
                "--cacert",
                &ca.to_string_lossy(),
                &self.rest_url(),
            ],
        );
        code.is_ok_and(|code| code == "405" || code == "404" || code == "200")
    }

    /// Servers that should run and do not.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        let all = ["s3", "rest", "rest-plain", "sshd", "s3-proxy", "rest-proxy"].into_iter();
        all.filter(|name| Daemon::new(&self.dir, name).pid().is_none())
            .map(str::to_owned)
            .collect()
    }

    pub fn down(&self) {
        for daemon in Daemon::all(&self.dir) {
            daemon.stop(Duration::from_secs(3));
        }
    }
}
