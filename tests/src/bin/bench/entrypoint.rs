//! What the entrypoint adds to restic.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::bail;
use tests::{Bed, progress};

use crate::median;
use crate::report::{Figure, Goal};

/// A backup through the entrypoint by restic alone, in turns on the same data, into fresh repositories.
pub fn entrypoint(bed: &Bed) -> anyhow::Result<Vec<Figure>> {
    progress("restic through the entrypoint and alone");
    let dir = tempfile::tempdir_in(bed.dir())?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    for n in 0..2000 {
        let seed = format!("{n}");
        let content: Vec<u8> = seed
            .bytes()
            .cycle()
            .take(150_000)
            .zip((0u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56))
            .map(|(a, b)| a ^ b as u8)
            .collect();
        std::fs::write(data.join(seed), content)?;
    }
    let script = bed.workspace.root.join("spoke/src/backup/entrypoint.sh");
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..7 {
        for (which, times) in times.iter_mut().enumerate() {
            let repository: PathBuf = dir.path().join(format!("repository-{round}-{which}"));
            let restic = |program: &str, arguments: &[&str]| -> anyhow::Result<()> {
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .env("RESTIC_REPOSITORY", &repository)
                    .env("RESTIC_PASSWORD", "p")
                    .env("RESTIC_CACHE_DIR", dir.path().join("cache"));
                command
                    .env("TERMINATION_LOG", dir.path().join("log"))
                    .env("RESTIC_PROGRESS_FPS", "0.1");
                command.env(
                    "PATH",
                    format!(
                        "{}:{}",
                        bed.workspace.bin().display(),
                        std::env::var("PATH").unwrap_or_default()
                    ),
                );
                let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
                if !status.success() {
                    bail!("restic ended with {status}");
                }
                Ok(())
            };
            restic("restic", &["init"])?;
            let data = data.to_string_lossy().into_owned();
            let backup = ["backup", "--json", &data];
            let start = Instant::now();
            if which == 0 {
                restic("restic", &backup)?;
            } else {
                let script = script.to_string_lossy().into_owned();
                restic("/bin/busybox", &[&["sh", script.as_str()][..], &backup].concat())?;
            }
            times.push(start.elapsed().as_secs_f64());
            std::fs::remove_dir_all(&repository)?;
        }
    }
    let [alone, through] = &mut times;
    let ratio = median(through) / median(alone);
    Ok(vec![Figure {
        name: "backup_wall_time_ratio_to_restic_alone",
        value: ratio,
        unit: "x",
        goal: Goal::AtMost(1.02),
    }])
}
