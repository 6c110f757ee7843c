//! A command's output on its way to restic, with the program itself, real sockets and a real restic.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::weak_key;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-spoke");

/// A pod's folder: where the containers meet, and a repository.
struct Pod {
    dir: tempfile::TempDir,
}

impl Pod {
    fn new() -> Pod {
        let pod = Pod {
            dir: tempfile::tempdir().unwrap(),
        };
        weak_key::repository(&pod.path("repository"));
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> String {
        self.path("socket").to_string_lossy().into_owned()
    }

    fn serve(&self, script: &str) -> Child {
        let socket = format!("--socket={}", self.socket());
        Command::new(PROGRAM)
            .args(["stream", "serve", &socket, "--", "/bin/sh", "-c", script])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn hold(&self) -> Child {
        let socket = format!("--socket={}", self.socket());
        Command::new(PROGRAM)
            .args(["stream", "hold", &socket])
            .spawn()
            .unwrap()
    }

    fn restic(&self, arguments: &[&str]) -> Output {
        Command::new("restic")
            .env("RESTIC_PASSWORD", "p")
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_CACHE_DIR", self.path("cache"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// restic as in the pod.
    fn backup(&self) -> Output {
        let socket = format!("--socket={}", self.socket());
        let from = [
            "--stdin-from-command",
            "--stdin-filename",
            "/backup/dump",
            "--",
            PROGRAM,
            "stream",
            "receive",
        ];
        let mut arguments = vec!["backup", "--json", "-q"];
        arguments.extend(from);
        arguments.push(&socket);
        self.restic(&arguments)
    }

    fn snapshots(&self) -> usize {
        let listed = self.restic(&["snapshots", "--json"]).stdout;
        serde_json::from_slice::<Value>(&listed)
            .unwrap()
            .as_array()
            .unwrap()
            .len()
    }
}

/// Ends within a bound.
fn ends(child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("it goes on");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn there(path: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_command_writes_is_in_the_snapshot_byte_for_byte() {
    let pod = Pod::new();
    let mut source = pod.serve("head -c 3000000 /dev/zero; printf '\\000end\\n'");
    let backup = pod.backup();
    assert!(backup.status.success(), "{}", text(&backup));
    assert!(ends(&mut source));
    let back = pod.restic(&["dump", "latest", "/backup/dump"]).stdout;
    assert_eq!(back.len(), 3_000_005);
    assert!(back.ends_with(b"\0\0end\n"));
}

#[test]
fn a_command_that_fails_or_writes_nothing_leaves_no_snapshot() {
    for (script, code, words) in [
        (
            "head -c 3000000 /dev/zero; echo no such table >&2; exit 7",
            65,
            "no such table",
        ),
        ("exit 7", 65, "exit status: 7"),
        ("head -c 70000 /dev/zero; kill -9 $$", 65, "signal: 9"),
        ("true", 66, "wrote nothing"),
    ] {
        let pod = Pod::new();
        let mut source = pod.serve(script);
        let backup = pod.backup();
        let said = text(&backup);
        assert!(!backup.status.success(), "{script}");
        assert!(
            said.contains(&format!("exit status {code}")) && said.contains(words),
            "{script}: {said}"
        );
        assert_eq!(ends(&mut source), code == 66, "{script}");
        assert_eq!(pod.snapshots(), 0, "{script}");
    }
}

#[test]
fn a_source_that_is_killed_leaves_no_snapshot() {
    let pod = Pod::new();
    let mark = pod.path("begun");
    let script = format!(
        "head -c 200000 /dev/zero; touch {}; exec sleep 60",
        mark.display()
    );
    let mut source = pod.serve(&script);
    let kill = std::thread::spawn(move || {
        there(&mark);
        source.kill().unwrap();
        source.wait().unwrap();
    });
    let backup = pod.backup();
    kill.join().unwrap();
    assert!(
        text(&backup).contains("ended before it could say"),
        "{}",
        text(&backup)
    );
    assert_eq!(pod.snapshots(), 0);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let pod = Pod::new();
    let socket = format!("--socket={}", pod.socket());
    let mut serve = Command::new(PROGRAM);
    serve
        .args(["stream", "serve", &socket, "--", "/no/such/program"])
        .stderr(Stdio::null());
    let mut source = serve.spawn().unwrap();
    let said = text(&pod.backup());
    assert!(said.contains("/no/such/program cannot be started"), "{said}");
    assert!(!ends(&mut source));
    assert_eq!(pod.snapshots(), 0);
}

#[test]
fn the_source_ends_with_restic_although_nobody_asked() {
    let pod = Pod::new();
    let mark = pod.path("begun");
    let mut source = pod.serve(&format!("touch {}", mark.display()));
    let mut held = pod.hold();
    there(&pod.path("socket"));
    // Until it is connected, its end would go unnoticed.
    let end = Instant::now() + Duration::from_secs(60);
    let connected = || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        sockets
            .lines()
            .filter(|line| line.ends_with(&pod.socket()))
            .count()
            > 1
    };
    while !connected() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    held.kill().unwrap();
    held.wait().unwrap();
    assert!(!ends(&mut source));
    assert!(!mark.exists(), "the command never ran");
    let said = text(&pod.backup());
    assert!(
        said.contains("without asking for the data"),
        "the reason is left for who comes late: {said}"
    );
}

#[test]
fn the_command_ends_with_restic() {
    let pod = Pod::new();
    let mark = pod.path("pid");
    let script = format!("echo x; echo $$ >{}; exec sleep 60", mark.display());
    let mut source = pod.serve(&script);
    let socket = format!("--socket={}", pod.socket());
    let mut held = pod.hold();
    let mut receive = Command::new(PROGRAM)
        .args(["stream", "receive", &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    there(&mark);
    receive.kill().unwrap();
    held.kill().unwrap();
    receive.wait().unwrap();
    held.wait().unwrap();
    assert!(!ends(&mut source));
    let pid = std::fs::read_to_string(&mark).unwrap();
    let gone = || !Path::new("/proc").join(pid.trim()).exists();
    let end = Instant::now() + Duration::from_secs(60);
    while !gone() {
        assert!(Instant::now() < end, "the command goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
