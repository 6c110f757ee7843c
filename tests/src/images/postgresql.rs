//! The image of a PostgreSQL server, made from Debian's packages without installing them on this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::busybox_root;
use crate::cluster::Cluster;
use crate::process::run;
use crate::tools::Workspace;

/// A server that starts as the official image does, of the version that this machine's Debian has.
pub const POSTGRESQL: &str = "localhost/postgresql:debian";
/// User and group of the server, as in the official image.
pub const USER: u32 = 999;

/// Packages that PostgreSQL depends on and does not need in an image: compiled queries, its cluster scripts, translations.
const LEFT_OUT: &[&str] = &["libllvm", "libz3", "libperl", "perl", "locales", "ssl-cert"];
/// What the image keeps of the packages.
const KEPT: &[&str] = &[
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    "usr/share/postgresql",
    "usr/share/zoneinfo",
];

impl Workspace {
    /// Makes the image if it is not there yet; returns the archive. Takes half a minute and 90 MB from Debian's mirror.
    ///
    /// # Errors
    /// No mirror can be reached.
    pub fn postgresql_image(&self) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(self.images())?;
        let tool = self.root.join("tests/tools/postgresql");
        let (dockerfile, entrypoint) = (tool.join("Dockerfile"), tool.join("entrypoint.sh"));
        self.image(
            POSTGRESQL,
            &[Path::new("/bin/busybox"), &dockerfile, &entrypoint],
            |context| {
                super::install(&entrypoint, &context.join("entrypoint.sh"))?;
                let root = context.join("root");
                let packages = context.join("packages");
                download(&packages, "postgresql")?;
                extract(&packages, &root)?;
                fs::remove_dir_all(&packages)?;
                let programs = server_root(&root)?;
                let text = fs::read_to_string(&dockerfile)?;
                Ok(text.replace("PROGRAMS", &format!("/{programs}")))
            },
        )
    }
}

/// Loads the image into a cluster.
///
/// # Errors
/// It cannot be made, or the cluster is not up.
pub fn load(cluster: &Cluster) -> anyhow::Result<()> {
    let archive = cluster.workspace.postgresql_image()?;
    super::load(&cluster.socket(), &cluster.dir.join("loaded"), &[archive])
}

/// Downloads a package with everything that it depends on, whatever of it this machine has installed.
fn download(to: &Path, package: &str) -> anyhow::Result<()> {
    fs::create_dir_all(to.join("partial"))?;
    // apt's view of a machine without any package.
    fs::write(to.join("status"), "")?;
    let get = || {
        run(
            "apt-get",
            &[
                "-qq",
                "-o",
                &format!("Dir::State::status={}", to.join("status").display()),
                "-o",
                &format!("Dir::Cache::archives={}", to.display()),
                "-o",
                "APT::Sandbox::User=root",
                "--no-install-recommends",
                "--download-only",
                "--yes",
                "install",
                package,
            ],
        )
    };
    if get().is_err() {
        // The lists of packages are missing or too old.
        run("apt-get", &["-qq", "update"]).context("no package mirror can be reached")?;
        get().with_context(|| format!("cannot download {package}"))?;
    }
    Ok(())
}

fn extract(packages: &Path, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root)?;
    for file in fs::read_dir(packages)? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".deb") && !LEFT_OUT.iter().any(|start| name.starts_with(start)) {
            run(
                "dpkg-deb",
                &["--extract", &file.to_string_lossy(), &root.to_string_lossy()],
            )?;
        }
    }
    Ok(())
}

/// Keeps what a server needs and adds a shell; returns the folder of PostgreSQL's programs, relative to the root.
fn server_root(root: &Path) -> anyhow::Result<String> {
    let whole = root.with_file_name("whole");
    fs::rename(root, &whole)?;
    for part in KEPT {
        if whole.join(part).symlink_metadata().is_ok() {
            let to = root.join(part);
            fs::create_dir_all(to.parent().unwrap_or(root))?;
            fs::rename(whole.join(part), to)?;
        }
    }
    fs::remove_dir_all(&whole)?;
    // Releases that keep everything below usr have links in its place.
    for part in ["lib", "lib64"] {
        if root.join(part).symlink_metadata().is_err() {
            symlink(format!("usr/{part}"), root.join(part))?;
        }
    }
    busybox_root(root)?;
    fs::write(
        root.join("etc/passwd"),
        format!("root:x:0:0:root:/root:/bin/sh\npostgres:x:{USER}:{USER}::/var/lib/postgresql:/bin/sh\n"),
    )?;
    fs::write(
        root.join("etc/group"),
        format!("root:x:0:root\npostgres:x:{USER}:\n"),
    )?;
    for folder in ["var/lib/postgresql", "var/run/postgresql"] {
        fs::create_dir_all(root.join(folder))?;
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o1777))?;
    }
    let server = root.join("usr/lib/postgresql");
    let Some(version) = fs::read_dir(&server)?.flatten().next() else {
        bail!("Debian's package postgresql has no server");
    };
    // For compiled queries only.
    let _ = fs::remove_dir_all(version.path().join("lib/bitcode"));
    Ok(format!(
        "usr/lib/postgresql/{}/bin",
        version.file_name().to_string_lossy()
    ))
}
