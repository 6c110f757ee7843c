//! Programs built once from their sources: Kubernetes, restic, the storage servers and a mail server.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::images::digest;
use crate::progress;

/// The one place that names the Kubernetes version; `tools/kube/go.mod` requires the same.
pub const KUBERNETES: &str = "v1.34.4";
/// Version of restic, and of its image.
pub const RESTIC: &str = "0.18.1";

/// Helm compares the version of Kubernetes that a chart asks for with that of the libraries it was built with, unless it is
/// told another.
const HELM_FLAGS: &str = "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0 \
    -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34 \
    -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=34";

/// What a debugger would read, and the linker leaves out; and restic as its own releases are built. Other programs do not know
/// the tag.
const OPTIONS: [&str; 4] = [
    "-trimpath",
    "-gcflags=all=-dwarf=false",
    "-tags",
    "disable_grpc_modules",
];
/// Most packages are compiled within less memory than this, and without a collection. A sixth of the time was that.
const COLLECT_LATE: [(&str, &str); 2] = [("GOGC", "off"), ("GOMEMLIMIT", "768MiB")];

/// Names under which the one Kubernetes binary is called.
const COMPONENTS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// Where everything is built and kept.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Root of the repository.
    pub root: PathBuf,
}

impl Workspace {
    /// The repository that this crate was built from.
    #[must_use]
    pub fn here() -> Workspace {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("/"));
        Workspace {
            root: root.to_owned(),
        }
    }

    /// `.testbed`, ignored by git.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join(".testbed")
    }

    /// Built programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.state().join("bin")
    }

    /// A built program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The program that runs the bed's own daemons: this one, or the one that `cargo build` made.
    ///
    /// # Errors
    /// It was not built.
    pub fn testbed(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        if own.file_name().is_some_and(|name| name == "testbed") {
            return Ok(own);
        }
        let built = self.product("dev", "testbed");
        if !built.exists() {
            bail!("{} is not built; run `make binaries`", built.display());
        }
        Ok(built)
    }

    /// Builds what a bed is made of and is not built yet.
    ///
    /// # Errors
    /// When something cannot be built.
    pub fn build(&self) -> anyhow::Result<()> {
        self.build_and(|| Ok(()))
    }

    /// The same, and more that needs all but Kubernetes. That takes as long as all others, which are made beside it: a program
    /// is linked on one core.
    ///
    /// # Errors
    /// When something cannot be built, and those of `more`.
    pub fn build_and<T>(&self, more: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        fs::create_dir_all(self.bin())?;
        std::thread::scope(|scope| {
            let kubernetes = scope.spawn(|| self.build_kubernetes());
            let others = self.build_restic_and_storage().and_then(|()| more());
            kubernetes.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            others
        })
    }

    fn build_kubernetes(&self) -> anyhow::Result<()> {
        let (major, minor) = KUBERNETES
            .trim_start_matches('v')
            .split_once('.')
            .unwrap_or_default();
        let minor = minor.split('.').next().unwrap_or_default();
        let version = format!(
            "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} \
             -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
        );
        let seconds = "seconds, once kube is built";
        self.build_tool("kube", "kube", ".", &version, "about 5 minutes the first time")?;
        self.build_tool("kube-schedule", "kube", "./schedule", "-s -w", seconds)?;
        for component in COMPONENTS {
            let link = self.program(component);
            if fs::read_link(&link).is_err() {
                symlink("kube", &link).with_context(|| format!("cannot link {component}"))?;
            }
        }
        Ok(())
    }

    fn build_restic_and_storage(&self) -> anyhow::Result<()> {
        for (name, package, time) in [
            ("restic", "github.com/restic/restic/cmd/restic", "about 1 minute"),
            (
                "rest-server",
                "github.com/restic/rest-server/cmd/rest-server",
                "seconds",
            ),
            ("minio", "github.com/minio/minio", "about 2 minutes"),
        ] {
            let time = format!("{time} the first time");
            self.build_tool(name, name, package, "-s -w", &time)?;
        }
        Ok(())
    }

    /// Builds a mail server, which only tests need.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn build_mailpit(&self) -> anyhow::Result<()> {
        let package = "github.com/axllent/mailpit";
        self.build_tool(
            "mailpit",
            "mailpit",
            package,
            "-s -w",
            "about 1 minute the first time",
        )
    }

    /// Builds Helm, the runner of its unit tests and a linter, which only the charts' tests need.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn build_chart_tools(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.bin())?;
        let time = "about 3 minutes the first time";
        self.build_tool("helm", "helm", "helm.sh/helm/v3/cmd/helm", HELM_FLAGS, time)?;
        for (name, package) in [
            (
                "helm-unittest",
                "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
            ),
            ("kube-score", "github.com/zegl/kube-score/cmd/kube-score"),
        ] {
            self.build_tool(name, name, package, "-s -w", "about 1 minute the first time")?;
        }
        Ok(())
    }

    /// Builds the emulator of Google's storage, which only its own tests need.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn build_fake_gcs(&self) -> anyhow::Result<()> {
        let (name, package) = ("fake-gcs-server", "github.com/fsouza/fake-gcs-server");
        self.build_tool(name, name, package, "-s -w", "about 2 minutes the first time")
    }

    /// Builds `package` of the module in `tests/tools/MODULE`.
    fn build_tool(
        &self,
        name: &str,
        module: &str,
        package: &str,
        flags: &str,
        time: &str,
    ) -> anyhow::Result<()> {
        let source = self.root.join("tests/tools").join(module);
        let stamp = self.bin().join(format!("{name}.stamp"));
        let mut wanted = stamp_of(&source, flags)?;
        if package.starts_with("./") {
            wanted = stamp_of(&source.join(package), &wanted)?;
        }
        if self.program(name).exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == wanted) {
            return Ok(());
        }
        let start = Instant::now();
        progress(&format!("building {name} from source, {time}"));
        let status = Command::new("go")
            .arg("build")
            .args(OPTIONS)
            .args(["-ldflags", flags, "-o"])
            .arg(self.program(name))
            .arg(package)
            .current_dir(&source)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .envs(COLLECT_LATE)
            .status()
            .context(
                "go is not installed: the test bed builds Kubernetes and restic with Go 1.26 or later",
            )?;
        if !status.success() {
            bail!("building {name} failed; if modules could not be fetched, check GOPROXY");
        }
        fs::write(stamp, wanted)?;
        progress(&format!("built {name} in {:.0?}", start.elapsed()));
        Ok(())
    }
}

fn stamp_of(source: &Path, flags: &str) -> anyhow::Result<String> {
    let mut text = flags.to_owned();
    let mut files: Vec<PathBuf> = fs::read_dir(source)?.flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        text.push_str(&fs::read_to_string(&file).unwrap_or_default());
    }
    Ok(digest(text.as_bytes()))
}
