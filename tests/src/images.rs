//! Images without a registry: OCI archives made by buildah, loaded into each cluster's containerd.

pub mod postgresql;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::process::run;
use crate::progress;
use crate::tools::{RESTIC, Workspace};

/// Image of the pause container that containerd is told to use.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// Images that the manifests in deploy/ name.
pub const SPOKE: &str = "ghcr.io/restic-fleet/spoke:dev";
pub const HUB: &str = "ghcr.io/restic-fleet/hub:dev";

/// Image, binary and recipe of each part of the product.
const PRODUCTS: [(&str, &str, &str); 2] = [
    (SPOKE, "fleet-spoke", "deploy/Dockerfile.spoke"),
    (HUB, "fleet-hub", "deploy/Dockerfile.hub"),
];

/// Another number makes every image anew: for a change of what is in them beside their inputs.
const LAYOUT: u8 = 2;
/// ssh of this machine, in the place of the one that restic's image has.
const SSH: &str = "/usr/bin/ssh";
/// Users and groups of the published image (Alpine 3.22): none of the ids that pods run as, root excepted.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/sbin/nologin\ndaemon:x:2:2:daemon:/sbin:/sbin/nologin\n\
lp:x:4:7:lp:/var/spool/lpd:/sbin/nologin\nsync:x:5:0:sync:/sbin:/bin/sync\nshutdown:x:6:0:shutdown:/sbin:/sbin/shutdown\n\
halt:x:7:0:halt:/sbin:/sbin/halt\nmail:x:8:12:mail:/var/mail:/sbin/nologin\nnews:x:9:13:news:/usr/lib/news:/sbin/nologin\n\
uucp:x:10:14:uucp:/var/spool/uucppublic:/sbin/nologin\ncron:x:16:16:cron:/var/spool/cron:/sbin/nologin\n\
ftp:x:21:21::/var/lib/ftp:/sbin/nologin\nsshd:x:22:22:sshd:/dev/null:/sbin/nologin\ngames:x:35:35:games:/usr/games:/sbin/nologin\n\
ntp:x:123:123:NTP:/var/empty:/sbin/nologin\nguest:x:405:100:guest:/dev/null:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:root\nnobody:x:65534:\n";

/// restic's image, which also serves as the application's.
#[must_use]
pub fn restic_image() -> String {
    format!("ghcr.io/restic/restic:{RESTIC}")
}

/// An image of ours as it is called in the version before.
#[must_use]
pub fn previous(image: &str) -> String {
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    format!("{name}:previous")
}

/// Hex SHA-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Folder of a build profile below `target/`.
#[must_use]
pub fn profile_dir(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

impl Workspace {
    fn images(&self) -> PathBuf {
        self.state().join("images")
    }

    /// A product's binary as the Makefile built it.
    #[must_use]
    pub fn product(&self, profile: &str, name: &str) -> PathBuf {
        let target = option_env!("FLEET_TARGET").unwrap_or("x86_64-unknown-linux-gnu");
        self.root
            .join("target")
            .join(target)
            .join(profile_dir(profile))
            .join(name)
    }

    /// Makes what is not made yet; returns the archives in the order of loading.
    pub fn build_images(&self, profile: &str) -> anyhow::Result<Vec<PathBuf>> {
        fs::create_dir_all(self.images())?;
        let busybox = Path::new("/bin/busybox");
        let mut archives = vec![
            self.image(PAUSE, &[busybox], |context| {
                install(busybox, &context.join("busybox"))?;
                Ok("FROM scratch\nCOPY busybox /busybox\nENTRYPOINT [\"/busybox\", \"sleep\", \"infinity\"]\n".to_owned())
            })?,
            self.image(&restic_image(), &[busybox, &self.program("restic"), Path::new(SSH)], |context| {
                self.restic_root(context)?;
                Ok("FROM scratch\nCOPY root/ /\nENV PATH=/usr/bin:/bin\nENTRYPOINT [\"/usr/bin/restic\"]\n".to_owned())
            })?,
        ];
        for (image, binary, dockerfile) in PRODUCTS {
            let binary = self.product(profile, binary);
            archives.push(self.product_image(image, &binary, &self.root.join(dockerfile))?);
        }
        Ok(archives)
    }

    /// The same for another version of the product: `folder` is what `tests/previous.sh` has made of it.
    ///
    /// # Errors
    /// It was not made.
    pub fn previous_images(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let archive = |(image, binary, dockerfile): &(&str, &str, &str)| {
            let (binary, file) = (folder.join("bin").join(binary), folder.join(dockerfile));
            self.product_image(&previous(image), &binary, &file)
        };
        PRODUCTS.iter().map(archive).collect()
    }

    fn product_image(&self, image: &str, binary: &Path, dockerfile: &Path) -> anyhow::Result<PathBuf> {
        if !binary.exists() {
            bail!("{} is not built; run `make binaries`", binary.display());
        }
        let inputs = [binary, dockerfile, &self.program("restic")];
        self.image(image, &inputs, |context| {
            let to = context.join(binary.file_name().unwrap_or_default());
            install(binary, &to)?;
            run("strip", &[&to.to_string_lossy()])?;
            Ok(fs::read_to_string(dockerfile)?)
        })
    }

    fn restic_root(&self, context: &Path) -> anyhow::Result<()> {
        let root = context.join("root");
        busybox_root(&root)?;
        fs::create_dir_all(root.join("etc/ssl/certs"))?;
        install(&self.program("restic"), &root.join("usr/bin/restic"))?;
        // As restic's image: it does not know the user that pods run as, so restic takes its name from USER, and ssh ends.
        fs::write(root.join("etc/passwd"), PASSWD)?;
        fs::write(root.join("etc/group"), GROUP)?;
        dynamic(Path::new(SSH), &root)?;
        if let Ok(certificates) = fs::read("/etc/ssl/certs/ca-certificates.crt") {
            fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), certificates)?;
        }
        Ok(())
    }

    /// An archive of an image, made anew when one of its inputs changed.
    fn image(
        &self,
        name: &str,
        inputs: &[&Path],
        prepare: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<PathBuf> {
        let file = self
            .images()
            .join(format!("{}.tar", name.replace(['/', ':'], "_")));
        let stamp = file.with_extension("stamp");
        let mut wanted = format!("{name}{LAYOUT}");
        for input in inputs {
            let bytes = fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
            wanted.push_str(&digest(&bytes));
        }
        if file.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == wanted) {
            return Ok(file);
        }
        progress(&format!("making image {name}"));
        let context = tempfile::tempdir_in(self.images())?;
        let dockerfile = prepare(context.path())?;
        fs::write(context.path().join("Dockerfile"), dockerfile)?;
        let storage = self.state().join("buildah");
        let (root, run_root) = (storage.join("root"), storage.join("run"));
        let global = |rest: &[&str]| {
            let (root, run_root) = (root.to_string_lossy(), run_root.to_string_lossy());
            let mut all = vec!["--root", &*root, "--runroot", &*run_root, "--storage-driver=vfs"];
            all.extend_from_slice(rest);
            run("buildah", &all)
        };
        let base = format!("BASE={}", restic_image());
        let context_path = context.path().to_string_lossy();
        global(&[
            "bud",
            "--isolation=chroot",
            "--pull-never",
            "--format=docker",
            "--build-arg",
            &base,
            "-t",
            name,
            &context_path,
        ])?;
        let _ = fs::remove_file(&file);
        global(&[
            "push",
            name,
            &format!("docker-archive:{}:{name}", file.to_string_lossy()),
        ])?;
        fs::write(stamp, wanted)?;
        Ok(file)
    }
}

fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A shell and its programs, and a folder for temporary files.
fn busybox_root(root: &Path) -> anyhow::Result<()> {
    for dir in ["bin", "usr/bin", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    install(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for applet in run("/bin/busybox", &["--list"])?
        .lines()
        .filter(|a| *a != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// Installs a program with the shared libraries that it names.
fn dynamic(program: &Path, root: &Path) -> anyhow::Result<()> {
    let text = program.to_string_lossy();
    let libraries = run("ldd", &[&text])?;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([&*text]) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        install(Path::new(path), &to)?;
    }
    Ok(())
}

/// Loads archives that a containerd does not have yet; `loaded` remembers their digests.
pub fn load(socket: &Path, loaded: &Path, archives: &[PathBuf]) -> anyhow::Result<()> {
    fs::create_dir_all(loaded)?;
    for archive in archives {
        let stamp = fs::read_to_string(archive.with_extension("stamp")).unwrap_or_default();
        let mark = loaded.join(archive.file_name().unwrap_or_default());
        if fs::read_to_string(&mark).is_ok_and(|m| m == stamp) {
            continue;
        }
        let (socket, archive) = (socket.to_string_lossy(), archive.to_string_lossy());
        run(
            "ctr",
            &["-a", &socket, "-n", "k8s.io", "images", "import", &archive],
        )?;
        fs::write(mark, stamp)?;
    }
    Ok(())
}

/// Gives an image that a containerd has another name as well.
///
/// # Errors
/// It does not have it.
pub fn tag(socket: &Path, image: &str, name: &str) -> anyhow::Result<()> {
    let socket = socket.to_string_lossy();
    let tag = [
        "-a", &socket, "-n", "k8s.io", "images", "tag", "--force", image, name,
    ];
    run("ctr", &tag).map(drop)
}
