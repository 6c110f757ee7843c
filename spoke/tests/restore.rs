//! What a ResticRestore asks restic for, with the entrypoint of its pod and a real restic.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::weak_key;

/// A repository with one snapshot of the folder `backup`, and the folder `restore`.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// With these files, which hold their own names.
    fn new(files: &[&str]) -> Bench {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in ["backup", "restore", "tmp"] {
            std::fs::create_dir(bench.path(folder)).unwrap();
        }
        for file in files {
            bench.write(&format!("backup/{file}"), file);
        }
        weak_key::repository(&bench.path("repository"));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin");
        let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("PATH", path);
        command
            .env("RESTIC_PASSWORD", "p")
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_CACHE_DIR", self.path("cache"));
        command
            .env("TERMINATION_LOG", self.path("termination"))
            .env("TMPDIR", self.path("tmp"));
        command
    }

    fn restic(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("restic");
        command.args(arguments);
        command
    }

    fn back_up(&self) {
        self.back_up_folder("backup");
    }

    fn back_up_folder(&self, folder: &str) {
        let backup = self.restic(&["backup", "-q", folder]).status().unwrap();
        assert!(backup.success());
    }

    /// Restores as a pod does with this spec. `wrapper` is a program that starts the entrypoint.
    fn restore_by(&self, wrapper: &[&str], folder: &str, spec: Value) -> (i32, Value) {
        let mut full = json!({ "target": { "pvc": { "claimName": "back" } } });
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let spec = serde_json::from_value(full).unwrap();
        let entrypoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backup/entrypoint.sh");
        let busybox = ["/bin/busybox", "sh"].as_slice();
        let words: Vec<&str> = wrapper.iter().chain(busybox).copied().collect();
        let output = self
            .command(words[0])
            .args(&words[1..])
            .arg(entrypoint)
            .args([
                "restore",
                &format!("latest:/backup{folder}"),
                "--json",
                "--target",
            ])
            .arg(self.path("restore"))
            .args(spoke::restore::arguments(&spec, true).unwrap())
            .output()
            .unwrap();
        let message = std::fs::read_to_string(self.path("termination")).unwrap();
        assert!(
            message.len() < 4096,
            "Kubernetes cuts longer messages: {}",
            message.len()
        );
        let message = serde_json::from_str(&message).unwrap_or_else(|e| panic!("{e}: {message}"));
        (output.status.code().unwrap(), message)
    }

    fn restore(&self, spec: Value) -> Value {
        let (code, message) = self.restore_by(&[], "", spec);
        assert_eq!(code, 0, "{message:#}");
        message
    }

    /// Files that were restored; the folder is empty afterwards.
    fn taken(&self) -> BTreeSet<String> {
        let files = files(&self.path("restore"), "");
        std::fs::remove_dir_all(self.path("restore")).unwrap();
        std::fs::create_dir(self.path("restore")).unwrap();
        files
    }
}

fn files(dir: &Path, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/")));
        } else {
            found.insert(name);
        }
    }
    found
}

fn set(files: &[&str]) -> BTreeSet<String> {
    files.iter().map(|&file| file.to_owned()).collect()
}

#[test]
fn what_is_included_comes_back_without_what_is_excluded() {
    let bench = Bench::new(&[
        "d/a",
        "d/x.log",
        "d/sub/y.log",
        "d/sub/z",
        "e/b",
        "e/b.log",
        "top",
    ]);
    bench.back_up();
    let paths = |include: Value, exclude: Value| {
        bench.restore(json!({ "includePaths": include, "excludePaths": exclude }));
        bench.taken()
    };
    assert_eq!(paths(json!(["/d"]), json!(["*.log"])), set(&["d/a", "d/sub/z"]));
    assert_eq!(
        paths(json!(["/d", "b*"]), json!(["/d/sub", "x.log"])),
        set(&["d/a", "e/b", "e/b.log"])
    );
    assert_eq!(
        paths(json!([]), json!(["*.log", "/d/sub"])),
        set(&["d/a", "e/b", "top"])
    );
}

#[test]
fn literal_names_select_themselves_and_nothing_else() {
    let special = [
        "a[1]", "b*", "c?", "!bang", "-dash", "e\\f", "#hash", "$HOME", " lead", "{a,b}", "g^h", "[", "]",
        "ü", "--delete",
    ];
    let plain = ["a1", "bb", "cc", "bang", "ef"];
    let all: Vec<&str> = special.iter().chain(&plain).copied().collect();
    let bench = Bench::new(&all);
    bench.back_up();
    let literal = |include: Value, exclude: Value| {
        bench.restore(
            json!({ "includePaths": include, "excludePaths": exclude, "options": { "pathMatching": "Literal" } }),
        );
        bench.taken()
    };
    let anchored: Vec<String> = special.iter().map(|name| format!("/{name}")).collect();
    assert_eq!(literal(json!(special), json!([])), set(&special));
    assert_eq!(literal(json!(anchored), json!([])), set(&special));
    assert_eq!(literal(json!([]), json!(special)), set(&plain));
    assert_eq!(literal(json!(all), json!(anchored)), set(&plain));
    // A pattern selects by its characters, and its ! is one of the name all the same.
    bench.restore(json!({ "includePaths": ["[ab]?", "!b*"] }));
    assert_eq!(bench.taken(), set(&["a1", "b*", "bb", "!bang"]));
}

#[test]
fn a_deletion_spares_what_is_excluded_and_a_preview_spares_all() {
    let bench = Bench::new(&["d/a", "d/b", "d/same"]);
    bench.back_up();
    let there = ["d/more", "cache/x/y", "other", "lost+found/z"];
    for file in there {
        bench.write(&format!("restore/{file}"), "mine");
    }
    bench.write("restore/d/b", "changed");
    let before = files(&bench.path("restore"), "");
    let spec = |dry_run: bool| json!({ "excludePaths": ["/cache"], "options": { "delete": true, "dryRun": dry_run, "verify": true } });
    let preview = bench.restore(spec(true));
    assert_eq!(files(&bench.path("restore"), ""), before, "{preview:#}");
    assert_eq!(
        std::fs::read_to_string(bench.path("restore/d/b")).unwrap(),
        "changed"
    );
    // The folder d counts as restored.
    assert_eq!(
        preview["actions"],
        json!({ "restored": 3, "updated": 1, "unchanged": 0 }),
        "{preview:#}"
    );
    assert_eq!(preview["summary"]["files_deleted"], 2);
    let done = bench.restore(spec(false));
    assert_eq!(done["summary"]["files_deleted"], 2, "as foretold");
    assert!(done["actions"].is_null());
    assert_eq!(
        bench.taken(),
        set(&["cache/x/y", "d/a", "d/b", "d/same", "lost+found/z"])
    );
}

/// Files that only a folder of the snapshot would spare are there, and its list is lost.
#[test]
fn a_deletion_needs_all_folders_of_the_snapshot() {
    let bench = Bench::new(&["kept/a", "kept/b", "other"]);
    bench.back_up_folder("backup/kept");
    let packs = files(&bench.path("repository/data"), "");
    // The other lists are in a pack of their own.
    bench.back_up();
    for pack in packs {
        std::fs::remove_file(bench.path("repository/data").join(pack)).unwrap();
    }
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    for file in ["kept/mine", "kept/a", "other"] {
        bench.write(&format!("restore/{file}"), "mine");
    }
    let before = files(&bench.path("restore"), "");
    for name in ["/--dry-run", "/cache"] {
        let spec = json!({ "excludePaths": [name], "options": { "delete": true, "verify": true } });
        let (code, message) = bench.restore_by(&[], "", spec);
        assert_eq!(files(&bench.path("restore"), ""), before);
        assert_eq!((code, &message["exitCode"]), (1, &json!(1)), "{message:#}");
        assert_eq!(
            (&message["untouched"], &message["summary"]),
            (&json!(true), &json!(null))
        );
        assert!(message["errors"].as_u64() > Some(0), "{message:#}");
        assert_eq!(
            std::fs::read_to_string(bench.path("restore/kept/a")).unwrap(),
            "mine"
        );
    }
    let (_, message) = bench.restore_by(&[], "", json!({ "excludePaths": ["--delete"] }));
    assert_eq!(
        message["untouched"], false,
        "what does not delete restores what it can"
    );
}

#[test]
fn a_folder_of_the_snapshot_is_restored_without_its_path() {
    let bench = Bench::new(&["d/sub/a", "d/sub/deep/b", "d/c"]);
    bench.back_up();
    let (code, message) = bench.restore_by(&[], "/d/sub", json!({ "includePaths": ["/deep", "a"] }));
    assert_eq!(code, 0, "{message:#}");
    assert_eq!(bench.taken(), set(&["a", "deep/b"]));
    for (missing, words) in [("/no/such", ": not found"), ("/d/c", ": not a directory")] {
        let (code, message) = bench.restore_by(&[], missing, json!({}));
        let fatal = message["fatal"]["message"].as_str().unwrap();
        assert!(
            code == 1 && fatal.starts_with("path ") && fatal.ends_with(words),
            "{fatal}"
        );
    }
}

#[test]
fn holes_stay_holes_unless_they_are_not_wanted() {
    let bench = Bench::new(&[]);
    let disk = bench.path("backup/disk");
    let length = 20 << 20;
    std::fs::File::create(&disk).unwrap().set_len(length).unwrap();
    bench.back_up();
    let restored = |options: Value| {
        bench.restore(json!({ "options": options }));
        let metadata = std::fs::metadata(bench.path("restore/disk")).unwrap();
        bench.taken();
        assert_eq!(metadata.len(), length);
        metadata.blocks() * 512
    };
    assert!(restored(json!({ "sparse": true })) < 1 << 20);
    assert!(restored(json!({})) >= length, "the claim is there");
    assert!(restored(json!({ "sparse": false })) >= length);
}

#[test]
fn a_hole_overwrites_what_was_there() {
    let bench = Bench::new(&[]);
    let disk = bench.path("backup/disk");
    std::fs::File::create(&disk).unwrap().set_len(3 << 20).unwrap();
    bench.back_up();
    for length in [1, 3, 5] {
        std::fs::write(bench.path("restore/disk"), vec![7; length << 20]).unwrap();
        bench.restore(json!({}));
        assert!(
            std::fs::read(bench.path("restore/disk")).unwrap() == std::fs::read(&disk).unwrap(),
            "{length}"
        );
    }
}

/// Needs root, which may give files away; the restore then may not.
#[test]
fn attributes_that_may_not_be_set_are_counted_and_real_errors_stay_errors() {
    let bench = Bench::new(&["plain", "owned", "marked", "d/owned \"too\""]);
    for file in ["owned", "d/owned \"too\""] {
        std::os::unix::fs::chown(bench.path(&format!("backup/{file}")), Some(1234), None)
            .expect("this test needs root");
    }
    let mark = |name: &str| {
        let setting = format!("import os; os.setxattr('backup/marked', '{name}', b'1')");
        let set = bench.command("python3").args(["-c", &setting]).status();
        set.is_ok_and(|status| status.success())
    };
    let marked = mark("security.fleet");
    bench.back_up();
    let without = [
        "setpriv",
        "--bounding-set=-sys_admin,-chown",
        "--inh-caps=-sys_admin,-chown",
    ];
    let (code, message) = bench.restore_by(&without, "", json!({}));
    assert_eq!((code, &message["exitCode"]), (0, &json!(0)), "{message:#}");
    let expected = if marked { 3 } else { 2 };
    assert_eq!(message["unset"]["files"], expected, "{message:#}");
    assert_eq!(message["errors"], expected);
    let names = message["unset"]["names"].to_string();
    assert!(
        names.contains("\"owner\"") && names.contains("security.fleet") == marked,
        "{names}"
    );
    assert_eq!(bench.taken(), files(&bench.path("backup"), ""));

    // A folder in the way of a file is another matter.
    bench.write("restore/plain/file", "mine");
    let (code, message) = bench.restore_by(&without, "", json!({}));
    assert_eq!((code, &message["exitCode"]), (1, &json!(1)), "{message:#}");
    assert!(
        message["unset"]["files"] == expected && message["errors"] == expected + 1,
        "{message:#}"
    );
    let items = message["items"].as_array().unwrap();
    assert!(
        items.len() == 1 && items[0]["item"].as_str().unwrap().ends_with("/plain"),
        "{message:#}"
    );
}
