//! The entrypoint of backup pods, run for real: a POSIX shell, awk, restic.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder with a repository, data, and a stand-in for restic where a test needs one.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["tmp", "bin", "data"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        // restic's image has busybox's awk, which passes lines on as they come.
        std::os::unix::fs::symlink("/bin/busybox", dir.path().join("bin/awk")).unwrap();
        std::fs::write(dir.path().join("data/a \"b\" ü.txt"), "hello").unwrap();
        Bench { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// restic as this script instead of the real one.
    fn fake(&self, script: &str) {
        let file = self.path("bin/restic");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, shell: &[&str], arguments: &[&str]) -> Command {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin");
        let path = format!(
            "{}:{}:{}",
            self.path("bin").display(),
            built.display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backup/entrypoint.sh"))
            .args(arguments);
        command
            .env("PATH", path)
            .env("TERMINATION_LOG", self.path("termination"))
            .env("TMPDIR", self.path("tmp"));
        command
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_PASSWORD", "p")
            .env("RESTIC_CACHE_DIR", self.path("cache"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Exit code, termination message, and all that was printed.
    fn run(&self, shell: &[&str], arguments: &[&str]) -> (i32, Value, String) {
        let output = self.command(shell, arguments).output().unwrap();
        let printed = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code().unwrap(), self.message(), printed)
    }

    fn message(&self) -> Value {
        let text = std::fs::read_to_string(self.path("termination")).unwrap();
        assert!(
            text.len() < 4096,
            "Kubernetes cuts longer messages: {}",
            text.len()
        );
        assert_eq!(
            std::fs::read_dir(self.path("tmp")).unwrap().count(),
            0,
            "nothing is left behind"
        );
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// The shells of Debian and of restic's image.
const SHELLS: &[&[&str]] = &[&["dash"], &["/bin/busybox", "sh"]];

fn backup(bench: &Bench) -> Vec<String> {
    ["backup", "--json", "--host", "h", "--"]
        .map(str::to_owned)
        .into_iter()
        .chain([bench.path("data").display().to_string()])
        .collect()
}

#[test]
fn a_link_out_of_the_volume_is_not_followed() {
    let bench = Bench::new();
    let (data, init) = (bench.path("data"), ["init", "--json"]);
    std::fs::create_dir(data.join("inside")).unwrap();
    std::fs::write(data.join("inside/file"), "hello").unwrap();
    for (name, target) in [("proc", "/proc"), ("again", "inside")] {
        std::os::unix::fs::symlink(target, data.join(name)).unwrap();
    }
    assert_eq!(bench.run(SHELLS[0], &init).0, 0);
    let attempt = |shell: &[&str], path: &str| {
        let path = data.join(path).display().to_string();
        let output = bench
            .command(shell, &["backup", "--json", "--", &path])
            .env("FLEET_SOURCE_DIR", &data)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            bench.message()["fatal"]["message"].to_string(),
        )
    };
    for shell in SHELLS {
        let (code, message) = attempt(shell, "proc/self/environ");
        assert!(
            code == 1 && message.contains("symbolic link"),
            "{code}: {message}"
        );
        for inside in ["inside/file", "again/file", "proc", ""] {
            let (code, message) = attempt(shell, inside);
            assert_eq!((code, message.as_str()), (0, "null"), "{inside}");
        }
        // What cannot be entered is restic's to complain about.
        assert!(!attempt(shell, "absent/file").1.contains("symbolic link"));
    }
    let snapshots = bench
        .command(&["sh"], &["ls", "latest", "--recursive"])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&snapshots.stdout).contains("environ"));
}

#[test]
fn ssh_gets_a_key_of_its_own_user_and_its_last_words_are_kept() {
    let bench = Bench::new();
    let (mounted, own) = (bench.path("id"), bench.path("own"));
    std::fs::write(&mounted, "key").unwrap();
    std::fs::set_permissions(&mounted, std::fs::Permissions::from_mode(0o444)).unwrap();
    bench.fake(
        r#"printf 'subprocess ssh: one\nsubprocess ssh: "Host" \\ key\t verification failed.\n' >&2
printf '{"message_type":"exit_error","code":1,"message":"Fatal: unexpected EOF"}\n' >&2
exit 1"#,
    );
    for shell in SHELLS {
        let _ = std::fs::remove_file(&own);
        let pair = format!("{}={}", mounted.display(), own.display());
        let output = bench
            .command(shell, &["version"])
            .env("FLEET_PRIVATE_FILES", format!("{pair} /not/there=/x"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(std::fs::read_to_string(&own).unwrap(), "key");
        assert_eq!(
            std::fs::metadata(&own).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let message = bench.message();
        assert_eq!(message["ssh"], "Host  key  verification failed.", "{message}");
        assert_eq!(message["fatal"]["message"], "Fatal: unexpected EOF");
    }
}

#[test]
fn a_credential_file_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    bench.fake("echo begun");
    let ca = bench.path("ca.crt");
    std::fs::write(&ca, "x").unwrap();
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Root reads everything, so another user has to try.
    for folder in ["", "tmp"] {
        std::fs::set_permissions(bench.path(folder), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backup/entrypoint.sh"));
    std::fs::write(bench.path("entrypoint.sh"), script.unwrap()).unwrap();
    for shell in SHELLS {
        let mut command = bench.command(&["setpriv"], &[]);
        command = {
            let mut other = Command::new("setpriv");
            other.args(["--reuid=568", "--regid=568", "--clear-groups"]);
            other.args(*shell).arg(bench.path("entrypoint.sh")).arg("version");
            other.envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
            );
            other
        };
        let named = format!("RESTIC_CACERT={}", ca.display());
        let output = command.env("FLEET_CREDENTIAL_FILES", named).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("begun"));
        let words = bench.message()["fatal"]["message"].to_string();
        assert!(words.contains("ca.crt: permission denied: user 568"), "{words}");
        std::fs::remove_file(bench.path("termination")).unwrap();
    }
}

#[test]
fn only_credential_files_that_are_there_reach_restic() {
    let bench = Bench::new();
    bench.fake("env");
    std::fs::write(bench.path("ca.crt"), "x").unwrap();
    std::fs::write(bench.path("empty"), "").unwrap();
    let file = |name: &str| bench.path(name).display().to_string();
    let named = format!(
        "RESTIC_CACERT={} RESTIC_TLS_CLIENT_CERT={} RCLONE_CONFIG={}",
        file("ca.crt"),
        file("missing"),
        file("empty")
    );
    for shell in SHELLS {
        let output = bench
            .command(shell, &["version"])
            .env("FLEET_CREDENTIAL_FILES", &named)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed
                .lines()
                .any(|l| l == format!("RESTIC_CACERT={}", file("ca.crt")))
        );
        assert!(
            !printed
                .lines()
                .any(|l| l.starts_with("RESTIC_TLS_CLIENT_CERT=") || l.starts_with("RCLONE_CONFIG="))
        );
    }
}

#[test]
fn real_runs_tell_their_exit_code_and_summary() {
    for shell in SHELLS {
        let bench = Bench::new();
        let arguments = backup(&bench);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, message, _) = bench.run(shell, &arguments);
        assert_eq!((code, &message["exitCode"]), (10, &10.into()), "no repository");
        let (code, ..) = bench.run(shell, &["init", "--json"]);
        assert_eq!(code, 0);
        let (code, message, printed) = bench.run(shell, &arguments);
        assert_eq!(
            (code, message["summary"]["snapshot_id"].as_str().unwrap().len()),
            (0, 64),
            "{message:#}"
        );
        assert!(
            printed.contains("\"message_type\":\"summary\""),
            "the log has restic's own output"
        );

        let (code, message, _) = bench.run(shell, &["backup", "--json", "/nonexistent-source"]);
        assert_eq!(
            (code, message["fatal"]["message_type"].as_str()),
            (1, Some("exit_error")),
            "{message:#}"
        );
        let output = bench
            .command(shell, &arguments)
            .env("RESTIC_PASSWORD", "wrong")
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), &bench.message()["exitCode"]),
            (Some(12), &12.into())
        );
    }
}

#[test]
fn a_flood_of_errors_is_counted_and_the_message_stays_small() {
    for shell in SHELLS {
        let bench = Bench::new();
        bench.fake(
            r#"i=0; while [ $i -lt 20000 ]; do echo "{\"message_type\":\"error\",\"error\":{\"message\":\"permission denied\"},\"item\":\"/backup/$i\"}" >&2; i=$((i+1)); done
               echo 'plain text: unable to refresh lock: gone' >&2
               echo '{"message_type":"summary","snapshot_id":"s"}'; exit 3"#,
        );
        let (code, message, _) = bench.run(shell, &["backup"]);
        assert_eq!(
            (code, &message["errors"], &message["lockLost"]),
            (3, &20000.into(), &true.into())
        );
        assert_eq!(message["items"].as_array().unwrap().len(), 5);
        assert_eq!(message["summary"]["snapshot_id"], "s");
    }
}

#[test]
fn pieces_that_are_too_long_are_left_out_whole() {
    for shell in SHELLS {
        let bench = Bench::new();
        bench.fake(
            r#"long=$(head -c 5000 /dev/zero | tr '\0' x)
               echo "{\"message_type\":\"error\",\"item\":\"$long\"}" >&2
               echo "{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"$long\"}" >&2; exit 1"#,
        );
        let (code, message, _) = bench.run(shell, &["backup"]);
        assert_eq!(
            (code, &message["fatal"], &message["errors"]),
            (1, &Value::Null, &1.into())
        );
    }
}

#[test]
fn a_signal_reaches_restic_and_its_end_is_waited_for() {
    for shell in SHELLS {
        let bench = Bench::new();
        // As restic does: takes its time to remove its lock.
        bench.fake(r#"trap 'sleep 0.5; echo cleaned >&2; exit 130' TERM; echo started; while :; do sleep 0.05; done"#);
        let mut child = bench.command(shell, &["backup"]).spawn().unwrap();
        let fifo = Instant::now() + Duration::from_secs(10);
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        assert!(line == "started\n" && Instant::now() < fifo);
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), &bench.message()["exitCode"]),
            (Some(130), &130.into())
        );
        assert!(String::from_utf8_lossy(&output.stderr).contains("cleaned"));
    }
}

#[test]
fn a_signal_as_a_preview_ends_well_is_no_success() {
    for shell in SHELLS {
        let bench = Bench::new();
        // The first run is the preview. It does not see the signal, and ends well after it was sent.
        bench.fake(
            r#"trap '' TERM; echo "$*" >>"$RESTIC_CACHE_DIR.runs"; while [ ! -e "$RESTIC_CACHE_DIR.sent" ]; do sleep 0.05; done"#,
        );
        let child = bench.command(shell, &["restore", "--delete"]).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !bench.path("cache.runs").exists() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(10));
        }
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        std::fs::write(bench.path("cache.sent"), "").unwrap();
        let output = child.wait_with_output().unwrap();
        let message = bench.message();
        assert_eq!(
            (output.status.code(), &message["exitCode"], &message["untouched"]),
            (Some(130), &130.into(), &true.into())
        );
        let runs = std::fs::read_to_string(bench.path("cache.runs")).unwrap();
        assert_eq!(runs, "restore --delete --verify=false --dry-run\n");
    }
}

#[test]
fn what_cannot_be_read_is_counted_once() {
    for shell in SHELLS {
        let bench = Bench::new();
        bench.fake(
            r#"echo '{"message_type":"error","error":{"message":"open /backup/a: permission denied"},"during":"scan","item":"/backup/a"}' >&2
               echo '{"message_type":"error","error":{"message":"open /backup/a: permission denied"},"during":"archival","item":"/backup/a"}' >&2
               echo '{"message_type":"summary","snapshot_id":"s"}'; exit 3"#,
        );
        let (_, message, _) = bench.run(shell, &["backup"]);
        assert_eq!(
            (&message["errors"], message["items"].as_array().unwrap().len()),
            (&1.into(), 1)
        );
    }
}

#[test]
fn the_kernels_count_of_processes_killed_for_memory_is_reported() {
    for shell in SHELLS {
        for (file, killed) in [
            ("memory.events", 1),
            ("memory.events", 0),
            ("memory/memory.oom_control", 1),
        ] {
            let bench = Bench::new();
            let counts = bench.path("cgroup").join(file);
            std::fs::create_dir_all(counts.parent().unwrap()).unwrap();
            std::fs::write(&counts, format!("oom 3\nunder_oom 0\noom_kill {killed}\n")).unwrap();
            bench.fake("kill -9 $$");
            let status = bench
                .command(shell, &["backup"])
                .env("CGROUP_DIR", bench.path("cgroup"))
                .output()
                .unwrap();
            assert_eq!(status.status.code(), Some(137));
            assert_eq!(bench.message()["outOfMemory"], (killed > 0), "{file} {killed}");
        }
    }
}

#[test]
fn a_killed_restic_is_no_success() {
    for shell in SHELLS {
        let bench = Bench::new();
        bench.fake("kill -9 $$");
        let (code, message, _) = bench.run(shell, &["backup"]);
        assert_eq!((code, &message["exitCode"]), (137, &137.into()));
    }
}

#[test]
fn the_exit_code_is_left_for_the_hooks_that_follow() {
    for shell in SHELLS {
        for code in [0, 3, 11] {
            let bench = Bench::new();
            bench.fake(&format!("exit {code}"));
            let outcome = bench.path("outcome");
            let mut command = bench.command(shell, &["backup", "--json"]);
            let output = command.env("FLEET_OUTCOME", &outcome).output().unwrap();
            assert_eq!(output.status.code(), Some(code));
            assert_eq!(std::fs::read_to_string(outcome).unwrap(), format!("{code}\n"));
            assert!(!bench.path("outcome.new").exists());
        }
    }
}
