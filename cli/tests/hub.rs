//! The program against a hub over real mTLS: what it prints, and its exit codes.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Fleet, ID, keep_last, object, policy, repository};
use crate::person::{Person, backup, condition, data, outcome};
use proto::v1::object_state::Body as Object;
use proto::v1::{BackupState, ObjectState, RestoreState};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_with_a_token_does_what_is_bound_and_logs_out() {
    let fleet = Fleet::new().await;
    let spokes = (fleet.spoke("a").await, fleet.spoke("b").await);
    spokes.0.tell(vec![backup("one")]).await;
    spokes.1.tell(vec![backup("two")]).await;
    let person = Person::new(&fleet);
    let (cert, key) = fleet.certificate("spiffe://fleet/admin/root");
    std::fs::write(person.dir.path().join("cert"), cert).unwrap();
    std::fs::write(person.dir.path().join("key"), key).unwrap();
    let (code, text) = outcome(person.by_login(&["status"])).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("fleet login"), "{text}");
    let (code, text) = person
        .run(&[
            "people",
            "bind",
            "--group",
            "ops",
            "--rights",
            "viewer",
            "--cluster",
            "a",
        ])
        .await;
    assert_eq!((code, text.contains("binding 1;")), (0, true), "{text}");
    let token = data(person.command(&["people", "invite", "ann", "--group", "ops"])).await;
    let ca = person.dir.path().join("ca");
    let hub = person.hub.clone();
    let log_in = [
        "login",
        "--hub",
        &hub,
        "--ca",
        ca.to_str().unwrap(),
        "--name",
        "test",
        "--token",
    ];
    let login = [&log_in[..], &[token.trim()]].concat();
    let (code, text) = outcome(person.by_login(&login)).await;
    assert_eq!((code, text.contains("logged in as ann")), (0, true), "{text}");
    assert!(!text.contains("fleet-session-"), "{text}");
    let (code, text) = outcome(person.by_login(&login)).await;
    assert_eq!((code, text.contains("was used already")), (4, true), "{text}");
    let names = data(person.by_login(&["backups", "-o", "name"])).await;
    assert_eq!(names, "a/ns/one\n");
    let text = data(person.by_login(&["whoami"])).await;
    assert!(
        text.starts_with("ann by token, until ") && text.contains("see in cluster a\n"),
        "{text}"
    );
    let text = data(person.by_login(&["contexts", "list"])).await;
    assert!(text.contains("*  test") && text.contains(" ann "), "{text}");
    let document = data(person.by_login(&["contexts", "list", "-o", "json"])).await;
    assert!(!document.contains("fleet-session-"), "{document}");
    let (code, text) = outcome(person.by_login(&["people", "list"])).await;
    assert_eq!(code, 4, "{text}");
    // Others could read the session.
    let file = person.dir.path().join("settings/fleet/contexts.json");
    let lax = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, lax).unwrap();
    let (code, text) = outcome(person.by_login(&["whoami"])).await;
    assert_eq!((code, text.contains("chmod 600")), (2, true), "{text}");
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, own).unwrap();
    let kept = std::fs::read_to_string(&file).unwrap();
    let (code, text) = outcome(person.by_login(&["logout"])).await;
    assert_eq!(code, 0, "{text}");
    let (code, _) = outcome(person.by_login(&["whoami"])).await;
    assert_eq!(code, 2);
    // The session itself is over, not only forgotten.
    std::fs::write(&file, kept).unwrap();
    let (code, text) = outcome(person.by_login(&["whoami"])).await;
    assert_eq!((code, text.contains("log in again")), (4, true), "{text}");
    let text = data(person.command(&["audit", "--who", "ann", "-o", "json"])).await;
    let audit: serde_json::Value = serde_json::from_str(&text).unwrap();
    let whats: Vec<&str> = audit["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| decision["what"].as_str().unwrap())
        .collect();
    assert!(whats.contains(&"login") && whats.contains(&"logout"), "{text}");
    let text = data(person.command(&["audit", "verify"])).await;
    assert!(text.starts_with("AS WRITTEN"), "{text}");
    let head = data(person.command(&["audit", "verify", "-o", "name"])).await;
    let known = ["audit", "verify", "--known", head.trim()];
    assert_eq!(person.run(&known).await.0, 0);
    let changed = head.replace(|c: char| c.is_ascii_digit(), "0");
    let (code, text) = person.run(&["audit", "verify", "--known", changed.trim()]).await;
    assert_eq!(code, 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_at_the_issuer_that_the_hub_trusts() {
    let issuer = crate::issuer::issuer().await;
    let fleet = Fleet::with(&["--oidc-issuer", &issuer.url, "--oidc-client-id", "fleet"]).await;
    let person = Person::new(&fleet);
    let ca = person.dir.path().join("ca");
    let login = [
        "login",
        "--hub",
        &person.hub,
        "--ca",
        ca.to_str().unwrap(),
        "--oidc",
        "--device",
    ];
    let mut command = person.by_login(&login);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (text, mut lines) = first.await.unwrap();
    assert!(
        text.contains("open http://x/device in a browser, and confirm the code AB-CD"),
        "{text}"
    );
    issuer.now.lock().unwrap().error = "";
    let rest = tokio::task::spawn_blocking(move || {
        let last = lines.next().unwrap().unwrap();
        (child.wait().unwrap().code(), last)
    });
    let (code, text) = rest.await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("logged in as oidc:ann@example.org until"), "{text}");
    let text = data(person.by_login(&["whoami"])).await;
    assert!(text.contains("by oidc") && text.contains("no rights"), "{text}");
    let names = data(person.by_login(&["contexts", "list", "-o", "name"])).await;
    assert_eq!(names, "127.0.0.1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_followed() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    let (cert, key) = fleet.certificate("spiffe://fleet/admin/root");
    std::fs::write(person.dir.path().join("cert"), cert).unwrap();
    std::fs::write(person.dir.path().join("key"), key).unwrap();
    let mut command = person.command(&["audit", "-w"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let lines = tokio::task::spawn_blocking(move || std::io::BufRead::lines(out).next().unwrap().unwrap());
    // Before it is asked for, or after: it is shown in both cases.
    person
        .run(&["people", "bind", "--user", "ann", "--role", "viewer"])
        .await;
    let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines).await;
    let line = line.unwrap().unwrap();
    assert!(
        line.ends_with("root  bind  user ann  viewer everywhere"),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

fn foreign(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(
        dir.join("foreign-ca"),
        parameters.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    let issuer = Issuer::new(parameters, key);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["peer".to_owned()]).unwrap();
    let uri = "spiffe://fleet/operator/mallory".try_into().unwrap();
    parameters.subject_alt_names.push(SanType::URI(uri));
    let cert = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("foreign-cert"), cert.pem()).unwrap();
    std::fs::write(dir.join("foreign-key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    let many = (0..300).map(|n| backup(&format!("backup-with-a-long-name-{n:04}")));
    spoke.tell(many.collect()).await;
    let person = Person::new(&fleet);
    fleet
        .until("300 backups", async |_| {
            person.run(&["backups", "-o", "name"]).await.1.lines().count() == 300
        })
        .await;
    for arguments in [
        &["backups", "-o", "json"][..],
        &["backups"],
        &["backups", "-o", "name"],
        &["backups", "-o", "yaml"],
        &["status", "--watch", "-o", "json"],
        &["backups", "--watch", "-o", "json"],
    ] {
        let mut command = person.command(arguments);
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut out = child.stdout.take().unwrap();
            out.read_exact(&mut [0; 16]).unwrap();
            drop(out);
            let output = child.wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        });
        let (code, said) = ended.await.unwrap();
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_there_is_none_of_is_a_usage_error() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    for arguments in [
        &["backups", "--state", "faild"][..],
        &["backups", "--state", "failed,lat"],
        &["repos", "--state", "failed"],
        &["clusters", "--state", "Stale"],
        &["backups", "--state", "faild", "--watch"],
    ] {
        let (code, text) = person.run(arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(
            text.contains("there is no state") && text.contains("states are"),
            "{text}"
        );
    }
    assert_eq!(person.run(&["backups", "--state", "failed,late"]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_there_is_none_of_is_a_usage_error_that_names_those_there_are() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    let (code, text) = person.run(&["backups", "--cluster", "a"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("none has connected yet"), "{text}");
    let _spokes = (fleet.spoke("a").await, fleet.spoke("b").await);
    for arguments in [
        &["backups", "--cluster", "c"][..],
        &["backups", "--cluster", "a,c"],
        &["repos", "--cluster", "c"],
        &["clusters", "--cluster", "c"],
        &["backups", "--cluster", "c", "--watch"],
    ] {
        let (code, text) = person.run(arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(
            text.contains("there is no cluster \"c\"; clusters are a, b"),
            "{text}"
        );
    }
    assert_eq!(person.run(&["backups", "--cluster", "a,b"]).await.0, 0);
}

/// Twenty causes are shown, all backups of them unknown; what is cut off needs a person.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_status_leaves_out_counts_and_is_said() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    let mut objects: Vec<ObjectState> = (0..20)
        .map(|n| {
            let body = BackupState {
                suspended: true,
                ..BackupState::default()
            };
            let mut never = object(&format!("never-{n}"), Object::Backup(body));
            let message = format!("image {n}");
            never
                .conditions
                .push(condition("Waiting", "True", "Image", &message));
            never
        })
        .collect();
    let mut shut = repository(ID);
    shut.conditions = vec![condition("Ready", "False", "WrongPassword", "wrong password")];
    objects.push(shut);
    spoke.tell(objects).await;
    let person = Person::new(&fleet);
    fleet
        .until("the rest", async |_| {
            let (code, text) = person.run(&["status"]).await;
            code == 1
                && text.contains("1 other matter needs a person")
                && text.contains("\n… and 1 more: fleet repos\n")
        })
        .await;
    let (_, text) = person.run(&["status", "-o", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["needsYouTotal"], 21);
    assert_eq!(document["needsYou"].as_array().unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_an_unknown_repository_is_a_usage_error() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    for name in ["nosuch", "ffffffff"] {
        let (code, text) = person.run(&["audit", name]).await;
        assert_eq!(code, 2, "{text}");
        assert!(
            text.contains(&format!("there is no repository {name:?}")),
            "{text}"
        );
    }
    assert_eq!(person.run(&["audit"]).await.0, 0);
    let (code, text) = person.run(&["plan", "show", "p-nosuch"]).await;
    assert_eq!(
        (code, text.as_str()),
        (2, "fleet: no plan is called \"p-nosuch\"; run fleet plan list\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_a_matter_of_trust_says_so() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    foreign(person.dir.path());
    let file = |name: &str| person.dir.path().join(name);

    let mut stranger = person.command(&["status"]);
    stranger
        .env("FLEET_CERT", file("foreign-cert"))
        .env("FLEET_KEY", file("foreign-key"));
    let (code, text) = outcome(stranger).await;
    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("refuses this certificate") && text.contains("signed by the authority"),
        "{text}"
    );

    let mut wrong = person.command(&["status"]);
    wrong.env("FLEET_CA", file("foreign-ca"));
    let (code, text) = outcome(wrong).await;
    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("not trusted") && text.contains("check FLEET_CA"),
        "{text}"
    );

    let mut renamed = person.command(&["status"]);
    renamed.env("FLEET_SERVER_NAME", "other");
    let (code, text) = outcome(renamed).await;
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("set FLEET_SERVER_NAME"), "{text}");

    // Nobody there is a matter of reach.
    let mut away = person.command(&["status"]);
    away.env("FLEET_HUB", "https://127.0.0.1:1");
    let (code, text) = outcome(away).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("cannot be reached"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_waits_for_a_person() {
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    let mut healthy = repository(ID);
    spoke.tell(vec![healthy.clone(), backup("orders")]).await;
    let person = Person::new(&fleet);
    fleet
        .until("all well", async |_| person.run(&["status"]).await.0 == 0)
        .await;

    let mut shut = repository(ID);
    shut.uid = "shut".to_owned();
    shut.name = "shut".to_owned();
    shut.conditions = vec![condition("Ready", "False", "WrongPassword", "wrong password")];
    let mut restore = object(
        "back",
        Object::Restore(RestoreState {
            phase: "Failed".to_owned(),
            ..RestoreState::default()
        }),
    );
    restore.conditions = vec![condition(
        "Ready",
        "False",
        "SnapshotNotFound",
        "no snapshot matches",
    )];
    let mut waiting = policy(keep_last(1));
    waiting.conditions.push(condition(
        "ApprovalRequired",
        "True",
        "PlanOverGuard",
        "removes 5 of 6 snapshots",
    ));
    let mut failed = policy(keep_last(1));
    failed.uid = "weekly".to_owned();
    failed.name = "weekly".to_owned();
    if let Some(Object::Policy(policy)) = &mut failed.body {
        policy.last_result = "Failed".to_owned();
    }
    failed.conditions.push(condition(
        "Degraded",
        "True",
        "RetentionFailed",
        "the repository is locked",
    ));
    for (object, state, subject, next) in [
        (shut, "UNREADY", "a/ns/shut", "fleet repos shut"),
        (
            restore,
            "RESTORE-FAILED",
            "a/ns/back",
            "kubectl describe rres -n ns back",
        ),
        (waiting, "WAITING", "a/ns/p", "fleet plan list"),
        (
            failed,
            "POLICY-FAILED",
            "a/ns/weekly",
            "kubectl describe grp -n ns weekly",
        ),
    ] {
        // One at a time: each alone has to be seen.
        healthy.generation += 1;
        let spoke = fleet.spoke("a").await;
        spoke.tell(vec![healthy.clone(), backup("orders"), object]).await;
        fleet
            .until(state, async |_| {
                let (code, text) = person.run(&["status"]).await;
                let line = text.lines().find(|line| line.starts_with(state));
                code == 1
                    && text.contains("1 other matter needs a person")
                    && line.is_some_and(|line| line.contains(subject) && line.contains(next))
            })
            .await;
    }
    let spoke = fleet.spoke("a").await;
    spoke.tell(vec![healthy, backup("orders")]).await;
    fleet
        .until("all well again", async |_| person.run(&["status"]).await.0 == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_hub_is_whole_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = Fleet::new().await;
    let spoke = fleet.spoke("a").await;
    // More than one part.
    let many = (0..2000).map(|n| backup(&format!("backup-with-a-long-name-{n:04}")));
    spoke.tell(many.collect()).await;
    let person = Person::with(&fleet, "admin");
    fleet
        .until("2000 backups", async |_| {
            person.run(&["backups", "-o", "name"]).await.1.lines().count() == 2000
        })
        .await;
    let file = person.dir.path().join("hub.backup");
    let name = file.to_str().unwrap();
    let (code, said) = person.run(&["hub", "backup", name]).await;
    assert_eq!(code, 0, "{said}");
    let metadata = std::fs::metadata(&file).unwrap();
    assert!(said.contains(&format!("{} bytes", metadata.len())), "{said}");
    assert!(metadata.len() > 300_000, "{said}");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let kept = fleet.running.hub.store().last_copy().await.unwrap();
    assert!(kept.is_some(), "its age is that of the file which is there");
    let (code, said) = person.run(&["hub", "backup", name]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("exists; choose another name"), "{said}");

    let store = person.dir.path().join("fleet.db");
    hub::store::copy::restore(&file, &store, None, false, 1)
        .await
        .unwrap();
    let restored = hub::store::Sqlite::open(&store).await.unwrap();
    let (_, objects) = hub::store::everything(&restored).await.unwrap();
    assert_eq!(objects.len(), 2000);
    let left = std::fs::read_dir(fleet.dir.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.contains(".sent")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_gets_no_backup_of_the_hub() {
    let fleet = Fleet::new().await;
    let person = Person::new(&fleet);
    let (cert, key) = fleet.certificate("spiffe://fleet/viewer/eve");
    std::fs::write(person.dir.path().join("cert"), cert).unwrap();
    std::fs::write(person.dir.path().join("key"), key).unwrap();
    let file = person.dir.path().join("hub.backup");
    let (code, said) = person.run(&["hub", "backup", file.to_str().unwrap()]).await;
    assert_eq!(code, 4, "{said}");
    assert!(!file.exists());
}
