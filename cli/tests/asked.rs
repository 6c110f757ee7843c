//! One object, what happened, the hub's health, completion and watches: the program against a hub over real mTLS.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Fleet, ID, keep_last, policy, repository};
use crate::person::{Person, backup, condition, data, outcome};
use crate::relay::Relay;
use proto::v1::object_state::Body as Object;
use proto::v1::{BackupResult, Hello, ObjectState};
use serde_json::Value;

/// A backup whose last run has failed.
fn failed(name: &str, reason: &str) -> ObjectState {
    let mut state = backup(name);
    if let Some(Object::Backup(body)) = &mut state.body {
        body.last_success = None;
        let run = body.last_run.as_mut().unwrap();
        run.result = BackupResult::Failed.into();
        run.reason = reason.to_owned();
        run.message = "the words of the run".to_owned();
    }
    state
}

async fn until_rows(fleet: &Fleet, person: &Person, count: usize) {
    fleet
        .until("the backups", async |_| {
            person.run(&["backups", "-o", "name"]).await.1.lines().count() == count
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_is_shown_with_all_that_is_known_and_says_why() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    let mut ill = failed("orders", "OutOfMemory");
    ill.conditions.push(condition("Progressing", "False", "Idle", ""));
    spoke.tell(vec![repository(ID), ill, backup("files")]).await;
    let person = Person::new(&fleet);
    until_rows(&fleet, &person, 2).await;

    let (code, text) = person.run(&["get", "a/ns/orders"]).await;
    assert_eq!(code, 0, "{text}");
    for part in [
        "FAILED  backup a/ns/orders\n",
        "why   OutOfMemory: the words of the run\n",
        "last run",
        "conditions\n",
        "Progressing  False",
        "repository  ",
        "fleet backups run a/ns/orders",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let (code, text) = person.run(&["why", "backup", "a/ns/orders"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.starts_with("backup a/ns/orders is FAILED: OutOfMemory: the words of the run; since")
            && text.contains("the memory limit")
            && text.contains("docs/conditions.md#"),
        "{text}"
    );
    let (code, text) = person.run(&["why", "a/ns/files"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("backup a/ns/files is OK: the last success was"),
        "{text}"
    );
    let document: Value =
        serde_json::from_str(&data(person.command(&["get", "a/ns/orders", "-o", "json"])).await).unwrap();
    assert_eq!(document["kind"], "Object");
    assert_eq!(document["object"]["state"], "failed");
    assert_eq!(document["resources"][0]["place"], "a/ns/orders");
    assert!(
        document["relations"]
            .as_array()
            .unwrap()
            .iter()
            .any(|of| of["what"] == "repository")
    );
    let (code, text) = person.run(&["why", "a/ns/orders", "-o", "json"]).await;
    assert_eq!(code, 1, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&document["kind"], &document["state"]),
        (&"Why".into(), &"failed".into())
    );
    for name in ["a", "nas", &ID[..10], "a/ns/nas"] {
        let (code, text) = person.run(&["get", name]).await;
        assert_eq!(code, 0, "{name}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_of_several_or_of_nothing_is_a_usage_error_that_says_what_to_type() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    let mut same = policy(keep_last(1));
    same.name = "orders".to_owned();
    spoke.tell(vec![repository(ID), backup("orders"), same]).await;
    let person = Person::new(&fleet);
    until_rows(&fleet, &person, 1).await;
    fleet
        .until("the policy", async |_| {
            person.run(&["policies", "-o", "name"]).await.1.lines().count() == 1
        })
        .await;
    let (code, text) = person.run(&["why", "a/ns/orders"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("fleet get backup a/ns/orders, fleet get policy a/ns/orders"),
        "{text}"
    );
    assert_eq!(person.run(&["get", "policy", "a/ns/orders"]).await.0, 0);
    for arguments in [
        &["get", "a/ns/none"][..],
        &["why", "none"],
        &["get", "backup", "b/ns/orders"],
    ] {
        let (code, text) = person.run(arguments).await;
        assert_eq!(code, 2, "{text}");
        assert!(
            text.contains("there is no ") && text.contains("lists what there is"),
            "{text}"
        );
    }
    let (code, text) = person.run(&["get", "pod", "x"]).await;
    assert_eq!(
        (code, text.contains("kinds are backup, policy")),
        (2, true),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_listed_in_pages_and_followed_over_a_restart_of_the_hub() {
    let fleet = Fleet::new().await;
    let relay = Relay::start(fleet.running.view.port()).await;
    let mut person = Person::with(&fleet, "admin");
    person.hub = format!("https://127.0.0.1:{}", relay.port);
    for name in ["ann", "bob"] {
        let (code, text) = person
            .run(&["people", "bind", "--user", name, "--role", "viewer"])
            .await;
        assert_eq!(code, 0, "{text}");
    }
    let (code, text) = person.run(&["activity"]).await;
    assert_eq!(code, 0, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("WHEN") && lines[1].contains("user bob") && lines[2].contains("user ann"),
        "{text}"
    );
    let (_, text) = person.run(&["activity", "--limit", "1"]).await;
    assert!(text.contains("there is more: --before "), "{text}");
    let list = data(person.command(&["activity", "--kind", "decision", "-o", "json"])).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["items"][0]["result"], "DONE", "{list:#}");
    let (_, text) = person.run(&["activity", "--kind", "restore"]).await;
    assert!(text.contains("nothing has happened that matches"), "{text}");

    let mut child = person
        .command(&["activity", "-w"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (send, mut lines_of) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(30), lines_of.recv())
            .await
            .unwrap()
            .unwrap()
    };
    assert!(next().await.contains("user ann"));
    assert!(next().await.contains("user bob"));
    // Nobody listens there.
    relay.lead_to(1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fleet = fleet.restart().await;
    relay.lead_to(fleet.running.view.port());
    let (code, text) = person
        .run(&["people", "bind", "--user", "cid", "--role", "viewer"])
        .await;
    assert_eq!(code, 0, "{text}");
    let line = next().await;
    assert!(line.contains("user cid"), "{line}");
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(
        said.contains("trying again") && said.contains("the hub is back"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_honours_its_order_and_output_and_survives_a_restart_of_the_hub() {
    let fleet = Fleet::new().await;
    let relay = Relay::start(fleet.running.view.port()).await;
    let spoke = fleet.spoke("a").await;
    spoke
        .tell(vec![
            repository(ID),
            backup("one"),
            backup("two"),
            failed("ill", "OutOfMemory"),
        ])
        .await;
    let mut person = Person::new(&fleet);
    person.hub = format!("https://127.0.0.1:{}", relay.port);
    until_rows(&fleet, &person, 3).await;
    let (code, text) = person.run(&["backups", "-w", "--sort", "colour"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("there is no column"), "{text}");

    let watch = |arguments: &[&str]| {
        let mut child = person
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        (child, receive)
    };
    let soon = Duration::from_secs(30);
    let mut open = Vec::new();
    for (arguments, expected) in [
        (
            &["backups", "-w", "-o", "name"][..],
            ["a/ns/ill", "a/ns/one", "a/ns/two"],
        ),
        (
            &["backups", "-w", "-o", "name", "--sort", "-name"],
            ["a/ns/two", "a/ns/one", "a/ns/ill"],
        ),
    ] {
        let (child, mut lines) = watch(arguments);
        for expected in expected {
            let line = tokio::time::timeout(soon, lines.recv()).await.unwrap().unwrap();
            assert_eq!(line, expected, "{arguments:?}");
        }
        open.push((child, lines));
    }
    let (mut child, mut lines) = open.remove(0);
    let fleet = fleet.restart().await;
    relay.lead_to(fleet.running.view.port());
    let spoke = fleet.spoke("a").await;
    spoke
        .tell(vec![
            repository(ID),
            backup("one"),
            backup("two"),
            backup("three"),
        ])
        .await;
    let seen = async { while lines.recv().await.unwrap() != "a/ns/three" {} };
    tokio::time::timeout(soon, seen).await.unwrap();
    for child in [&mut child, &mut open[0].0] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_health_and_all_versions_are_shown() {
    let fleet = Fleet::new().await;
    let person = Person::with(&fleet, "admin");
    let (code, text) = person.run(&["health"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.starts_with("NOT WELL  hub ") && text.contains("never copied"),
        "{text}"
    );
    let file = person.dir.path().join("copy");
    assert_eq!(person.run(&["hub", "backup", file.to_str().unwrap()]).await.0, 0);
    let document = data(person.command(&["health", "-o", "json"])).await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(
        (&document["storeWell"], &document["troubles"]),
        (&true.into(), &serde_json::json!([]))
    );
    let own = env!("CARGO_PKG_VERSION");
    let text = data(person.command(&["version"])).await;
    assert!(
        text.starts_with(&format!("fleet  {own}\nhub    {own}\n")),
        "{text}"
    );
    let text = data(person.command(&["version", "-o", "name"])).await;
    assert_eq!(text, format!("{own}\n"));
    // Its own version is known without a hub; that of a hub that is away is not.
    let (code, text) = outcome(person.by_login(&["version"])).await;
    assert_eq!((code, text.contains("no hub is asked")), (0, true), "{text}");
    let mut away = person.command(&["version"]);
    away.env("FLEET_HUB", "https://127.0.0.1:1");
    let (code, text) = outcome(away).await;
    assert_eq!((code, text.contains(own)), (3, true), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_completes_names_from_the_hub_and_never_waits_for_it() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    spoke
        .tell(vec![repository(ID), backup("orders"), backup("files")])
        .await;
    let person = Person::new(&fleet);
    until_rows(&fleet, &person, 2).await;
    let complete = |words: &[&str], hub: &str| {
        let mut command = person.command(&[&["--", "fleet"], words].concat());
        command.env("COMPLETE", "fish").env("FLEET_HUB", hub);
        command
    };
    for (words, expected) in [
        (&["why", "a/ns/o"][..], "a/ns/orders"),
        (&["backups", "run", "a/"], "a/ns/files"),
        (&["why-locked", "n"], "nas"),
        (&["backups", "--cluster", ""], "a"),
        (&["sta"], "status"),
    ] {
        let (code, text) = outcome(complete(words, &person.hub)).await;
        assert_eq!(code, 0, "{words:?}: {text}");
        assert!(
            text.lines().any(|line| line.split('\t').next() == Some(expected)),
            "{words:?}: {text}"
        );
    }
    // One that accepts connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let (code, text) = outcome(complete(&["why", "a"], &address)).await;
    assert_eq!((code, text.trim()), (0, ""), "{text}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    for shell in ["bash", "zsh", "fish"] {
        let script = data(person.command(&["completion", shell])).await;
        assert!(
            script.contains("COMPLETE") && script.contains("fleet"),
            "{script}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_plugin_of_kubectl_it_is_the_same_program_under_its_name() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    let plugin = person.dir.path().join("kubectl-fleet");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fleet"), &plugin).unwrap();
    let output = std::process::Command::new(&plugin)
        .args(["why", "--help"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Usage: kubectl fleet why"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_there_are_colours_and_no_line_is_wider_and_in_a_pipe_neither() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    spoke
        .tell(vec![repository(ID), failed(&"long".repeat(20), "OutOfMemory")])
        .await;
    let person = Person::new(&fleet);
    until_rows(&fleet, &person, 1).await;
    let text = data(person.command(&["backups"])).await;
    assert!(
        !text.contains('\u{1b}') && text.lines().any(|line| line.len() > 120),
        "{text}"
    );
    // A terminal of 70 columns.
    let line = format!(
        "stty cols 70 rows 20; {} backups; {0} backups -o wide",
        env!("CARGO_BIN_EXE_fleet")
    );
    let with = |no_colour: &str| {
        let mut script = std::process::Command::new("script");
        let plain = person.command(&[]);
        let variables = plain
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        script
            .args(["-qec", &line, "/dev/null"])
            .envs(variables)
            .env("TERM", "xterm")
            .env("NO_COLOR", no_colour)
            .stdin(Stdio::null());
        script
    };
    let (code, text) = outcome(with("")).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\u{1b}[31mFAILED\u{1b}[0m"), "{text}");
    let narrow = text
        .lines()
        .take(2)
        .map(|line| line.trim_end().replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""));
    for line in narrow {
        assert!(line.chars().count() <= 70, "{line}");
    }
    assert!(
        text.lines().skip(2).any(|line| line.chars().count() > 120),
        "wide is whole: {text}"
    );
    let (_, text) = outcome(with("1")).await;
    assert!(!text.contains("\u{1b}["), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_the_hub_alone_names_what_is_wrong_and_waits_no_longer_than_asked() {
    let fleet = Fleet::new().await;
    let person = Person::with(&fleet, "admin");
    let (code, text) = person.run(&["check"]).await;
    assert_eq!(code, 3, "{text}");
    for part in [
        "GOOD     hub-reached",
        "GOOD     hub-store",
        "UNKNOWN  clusters-connected",
        "NOTE     cluster ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let hello = || Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Hello::default()
    };
    let spoke = fleet.spoke_that_says("a", hello()).await;
    spoke
        .tell(vec![repository(ID), failed("orders", "OutOfMemory")])
        .await;
    until_rows(&fleet, &person, 1).await;
    let (code, text) = person.run(&["check", "--short"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.starts_with("BAD  backed-up") && text.contains("→ fleet status"),
        "{text}"
    );
    let start = Instant::now();
    let (code, text) = person.run(&["check", "--wait", "1s"]).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("waiting: backed-up: "), "{text}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let spoke = fleet.spoke_that_says("a", hello()).await;
    spoke.tell(vec![repository(ID), backup("orders")]).await;
    let (code, text) = person.run(&["check", "--wait", "20s"]).await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = outcome(person.by_login(&["check"])).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("neither a kubeconfig nor a login"), "{text}");
}
