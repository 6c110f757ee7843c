//! What the entrypoint adds to restic, in backups and in restores.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::bail;
use tests::{Bed, progress};

use crate::median;
use crate::report::{Figure, Goal};

/// Turns, each of which runs restic alone and through the entrypoint: a machine that does other work meanwhile slows down
/// both halves of a turn.
const TURNS: usize = 15;
const FILES: usize = 2000;
const FILE_SIZE: usize = 150_000;

/// A backup and a restore through the entrypoint by restic alone. Pods and their start are apart from it.
pub fn entrypoint(bed: &Bed) -> anyhow::Result<Vec<Figure>> {
    progress("restic through the entrypoint and alone");
    let dir = tempfile::tempdir_in(bed.dir())?;
    let place = Place::new(bed, dir.path())?;
    let ratio = |name, value| Figure {
        name,
        value,
        unit: "x",
        goal: Goal::AtMost(1.02),
    };
    Ok(vec![
        ratio("backup_wall_time_ratio_to_restic_alone", place.backups()?),
        ratio("restore_wall_time_ratio_to_restic_alone", place.restores()?),
    ])
}

/// Who runs restic.
#[derive(Clone, Copy)]
enum By {
    Itself,
    Entrypoint,
}

/// Folders of the measurement.
struct Place<'a> {
    dir: &'a Path,
    data: PathBuf,
    script: PathBuf,
    path: String,
}

impl Place<'_> {
    fn new<'a>(bed: &Bed, dir: &'a Path) -> anyhow::Result<Place<'a>> {
        let data = dir.join("data");
        std::fs::create_dir(&data)?;
        for n in 0..FILES {
            let seed = format!("{n}");
            let content: Vec<u8> = seed
                .bytes()
                .cycle()
                .take(FILE_SIZE)
                .zip((0u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56))
                .map(|(a, b)| a ^ b as u8)
                .collect();
            std::fs::write(data.join(seed), content)?;
        }
        let given = std::env::var("PATH").unwrap_or_default();
        Ok(Place {
            dir,
            data,
            script: bed.workspace.root.join("spoke/src/backup/entrypoint.sh"),
            path: format!("{}:{given}", bed.workspace.bin().display()),
        })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Seconds that restic takes.
    fn run(&self, by: By, arguments: &[&str]) -> anyhow::Result<f64> {
        let mut command = match by {
            By::Itself => Command::new("restic"),
            By::Entrypoint => {
                let mut shell = Command::new("/bin/busybox");
                shell.arg("sh").arg(&self.script);
                shell
            }
        };
        command
            .args(arguments)
            .env("RESTIC_REPOSITORY", self.folder("repository"))
            .env("RESTIC_PASSWORD", "p")
            .env("RESTIC_CACHE_DIR", self.folder("cache"))
            .env("TERMINATION_LOG", self.folder("log"))
            .env("RESTIC_PROGRESS_FPS", "0.1")
            .env("PATH", &self.path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let seconds = start.elapsed().as_secs_f64();
        if !status.success() {
            bail!("restic {} ended with {status}", arguments.join(" "));
        }
        Ok(seconds)
    }

    /// The folders are not there.
    fn without(&self, names: &[&str]) -> anyhow::Result<()> {
        for folder in names.iter().map(|name| self.folder(name)) {
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
        }
        // What is left to be written of this would be charged to the next run.
        Command::new("sync").status()?;
        Ok(())
    }

    /// Into a fresh repository, with an empty cache.
    fn backups(&self) -> anyhow::Result<f64> {
        let data = self.data.to_string_lossy();
        paired(|by| {
            self.without(&["repository", "cache"])?;
            self.run(By::Itself, &["init"])?;
            self.run(by, &["backup", "--json", &data])
        })
    }

    /// Of the last backup, into a fresh folder.
    fn restores(&self) -> anyhow::Result<f64> {
        let target = self.folder("target");
        let target = target.to_string_lossy();
        paired(|by| {
            self.without(&["target"])?;
            self.run(by, &["restore", "latest", "--json", "--target", &target])
        })
    }
}

/// The median of the turns' ratios. Who begins changes from turn to turn.
fn paired(mut run: impl FnMut(By) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut ratios = Vec::new();
    for turn in 0..TURNS {
        let (alone, through) = if turn % 2 == 0 {
            let alone = run(By::Itself)?;
            (alone, run(By::Entrypoint)?)
        } else {
            let through = run(By::Entrypoint)?;
            (run(By::Itself)?, through)
        };
        ratios.push(through / alone);
    }
    Ok(median(&mut ratios))
}
