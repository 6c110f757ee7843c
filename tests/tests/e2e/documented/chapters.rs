//! The chapters of [`Story`]: each command, what is typed for it here, and a piece of what it prints.

use tests::bed::HUB_VIEW_PORT;
use tests::pki::Authority;

use super::fleet::Story;
use crate::support::{Place, bed};

/// Questions.
pub fn looks(story: &mut Story, id: &str) {
    for (page, says) in [
        ("fleet backups", "orders"),
        ("fleet backups -o wide", "orders"),
        ("fleet backups -o name", "b/shop/orders"),
        ("fleet clusters", "CONNECTED"),
        (
            "fleet clusters --state conflict,refused -o wide",
            "nothing matches",
        ),
        ("fleet repos", "nas"),
        ("fleet repos -o wide", "nas"),
        ("fleet coverage", "covered"),
        ("fleet storage", "nas"),
        ("fleet locks", "nobody waits"),
        ("fleet audit verify", "AS WRITTEN"),
        ("fleet whoami", "admin"),
        ("fleet activity", "orders"),
        ("fleet completion bash", "complete"),
        ("fleet version", env!("CARGO_PKG_VERSION")),
    ] {
        story.is(page, says);
    }
    for (page, typed, says) in [
        (
            "fleet why CLUSTER/NAMESPACE/NAME",
            "fleet why b/shop/orders",
            "orders",
        ),
        ("fleet why REPO", "fleet why b/shop/nas", "nas"),
        ("fleet why CLUSTER", "fleet why b", "cluster b"),
        (
            "fleet get CLUSTER/NAMESPACE/NAME",
            "fleet get b/shop/orders",
            "orders",
        ),
        ("fleet get", "fleet get shop/orders", "orders"),
        (
            "fleet why-locked NAMESPACE/NAME",
            "fleet why-locked shop/nas",
            "nas",
        ),
        ("fleet why-locked REPO", "fleet why-locked b/shop/nas", "nas"),
        (
            "fleet why-locked",
            &format!("fleet why-locked {}", &id[..8]),
            "nas",
        ),
        ("fleet clusters CLUSTER", "fleet clusters b", "CONNECTED"),
        ("fleet repos history", "fleet repos history shop/nas", "SNAPSHOTS"),
        (
            "fleet repos history NAME",
            "fleet repos history b/shop/nas",
            "SNAPSHOTS",
        ),
        ("fleet snapshots list", "fleet snapshots list b/shop/nas", "shop"),
    ] {
        story.filled(page, typed, says);
    }
    // Others on this bed may be unwell, and one backup has not run yet.
    story.run("fleet status", "fleet status", &[0, 1, 3], "backups");
    story.run("fleet health", "fleet health", &[0, 1], "clusters connected");
    story.run("fleet why", "fleet why shop/orders", &[0, 1], "b/shop/orders");
    let never = "fleet why policy shop/nightly";
    story.run(
        "fleet why policy a/ops/nightly",
        never,
        &[3],
        "it has not run yet",
    );
    story.interrupted("fleet activity -w", "orders");
}

/// What clusters are made to do, and what becomes of it.
pub fn runs(story: &mut Story, place: &Place) {
    let (new, again) = (
        "--new-claim back --size 1Gi --no-wait",
        "--claim data --path again",
    );
    for (page, typed, says) in [
        (
            "fleet backups run",
            "fleet backups run b/shop/orders",
            "DONE: snapshot",
        ),
        (
            "fleet backups run CLUSTER/shop/orders-data",
            "fleet backups run b/shop/orders-data",
            "DONE: snapshot",
        ),
        (
            "fleet backups suspend",
            "fleet backups suspend b/shop/orders",
            "spec.suspend is true",
        ),
        (
            "fleet backups resume",
            "fleet backups resume b/shop/orders",
            "not set any more",
        ),
        (
            "fleet repos unlock",
            "fleet repos unlock b/shop/nas",
            "there is no lock",
        ),
        ("fleet repos check", "fleet repos check b/shop/nas", "DONE"),
        (
            "fleet restore create",
            &format!("fleet restore create b/shop/orders {again}"),
            "restored 3 files",
        ),
        (
            "fleet restore create --new-claim",
            &format!("fleet restore create b/shop/orders {new}"),
            "SENT",
        ),
    ] {
        story.filled(page, typed, says);
    }
    let snapshot = place.get("resticbackup/orders")["status"]["lastBackup"]["snapshotID"].clone();
    let file = format!(
        "fleet snapshots get b/shop/nas {} /backup/small/a.txt",
        snapshot.as_str().unwrap()
    );
    story.filled("fleet snapshots get", &file, "hello");
    story.filled("fleet audit", "fleet audit shop/nas", "check");
    story.is("fleet operations list", "create restore");
    let begun = story.json("fleet operations list")["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    story.run(
        "fleet operations cancel",
        &format!("fleet operations cancel {begun}"),
        &[1],
        "it has begun",
    );
}

/// A plan that waits for a person, and its approval.
pub fn plans(story: &mut Story, place: &Place) {
    story.filled(
        "fleet retention preview",
        "fleet retention preview b/shop/nightly",
        "DONE",
    );
    story.run(
        "fleet retention run",
        "fleet retention run b/shop/nightly",
        &[6],
        "waits",
    );
    story.run("fleet plan list", "fleet plan list", &[6], "shop/nightly");
    let plan = story.json("fleet plan list")["items"][0].clone();
    let (id, hash) = (plan["id"].as_str().unwrap(), plan["hash"].as_str().unwrap());
    let status = place.get("globalretentionpolicy/nightly")["status"].clone();
    for (page, named) in [
        ("fleet plan show", id),
        ("fleet plan show p-81f2ab34", id),
        ("fleet plan show PLAN", status["plan"].as_str().unwrap_or("none")),
    ] {
        story.run(page, &format!("fleet plan show {named}"), &[6], &hash[..12]);
    }
    let other = format!("fleet plan approve {id} --hash 0123456789ab");
    for page in ["fleet plan approve", "fleet plan approve PLAN --hash HASH"] {
        story.run(page, &other, &[6], "hash");
    }
    let approved = format!("fleet plan approve {id} --hash {hash}");
    story.run(
        "fleet plan approve p-81f2ab34 --hash 9d1a03bc77e1",
        &approved,
        &[0],
        "approved",
    );
    story.filled(
        "fleet retention suspend",
        "fleet retention suspend b/shop/nightly",
        "spec.suspend is true",
    );
}

/// Locks and a pause of all maintenance.
pub fn holds(story: &mut Story) {
    story.is(
        "fleet pause --reason 'the storage moves'",
        "maintenance is paused",
    );
    story.filled(
        "fleet pause",
        "fleet pause --reason again",
        "maintenance is paused",
    );
    story.is("fleet resume", "maintenance goes on");
    for (page, more) in [
        ("fleet locks release REPO --token N", ""),
        ("fleet locks release REPO --token N --i-checked", " --i-checked"),
    ] {
        story.run(
            page,
            &format!("fleet locks release shop/nas --token 7{more}"),
            &[6],
            "under this token",
        );
    }
    story.run(
        "fleet repos accept REPO CLUSTER",
        "fleet repos accept shop/nas b",
        &[6],
        "bound to it already",
    );
}

/// Rights, invitations, logins.
pub fn people(story: &mut Story) {
    story.is(
        "fleet people bind --group ops --rights operator --cluster 'prod-*'",
        "it takes effect at once",
    );
    story.is(
        "fleet people bind --user ann --rights see,approve --cluster prod-eu --namespace shop",
        "it takes effect at once",
    );
    let hub = bed().hub_address(HUB_VIEW_PORT);
    for (invited, documented) in [
        (
            "fleet people invite ann --group ops",
            "fleet login --hub https://hub.example.org:8444 --pin sha256:… --token -",
        ),
        ("fleet people invite", "fleet login"),
    ] {
        let text = story.filled(invited, "fleet people invite ann --group ops", "sha256:");
        let pin = text
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"))
            .unwrap();
        let token = text.split_whitespace().next().unwrap();
        let login = format!("fleet login --hub {hub} --pin {pin} --token {token}");
        story.alone(documented, &login, "ann");
    }
    let contexts = story.json("fleet contexts list");
    let name = contexts["items"][0]["name"].as_str().unwrap().to_owned();
    story.filled(
        "fleet contexts use",
        &format!("fleet contexts use {name}"),
        "is used from now on",
    );
    story.alone("fleet logout", "fleet logout", "ann is logged out");
    story.is("fleet people list", "cluster prod-eu; namespace shop");
    story.filled(
        "fleet people revoke NAME",
        "fleet people revoke ann",
        "sessions of ann that were ended: ",
    );
    story.filled(
        "fleet people revoke",
        "fleet people revoke bob",
        "sessions of bob that were ended: 0",
    );
    story.filled(
        "fleet people revoke-certificate NAME",
        "fleet people revoke-certificate bob",
        "refused from now on",
    );
    story.filled("fleet dashboard", "fleet dashboard --no-open", "https://");
    let oidc = "fleet login --hub … --pin … --oidc";
    story.elsewhere(&[oidc], "cli/tests/login.rs", &[r#""--pin", &pin, "--oidc""#]);
}

/// A cluster that is invited and does not come, and what is left of one.
pub fn clusters(story: &mut Story) {
    for (page, typed, says) in [
        (
            "fleet clusters join berlin",
            "fleet clusters join berlin",
            "kubectl",
        ),
        ("fleet clusters join", "fleet clusters join berlin", "kubectl"),
        (
            "fleet clusters join NAME",
            "fleet clusters join berlin",
            "kubectl",
        ),
        (
            "fleet clusters join NAME -o yaml",
            "fleet clusters join berlin -o yaml",
            "kind: Secret",
        ),
        (
            "fleet clusters ban NAME --reason TEXT",
            "fleet clusters ban berlin --reason lost",
            "cannot connect any more",
        ),
        (
            "fleet clusters unban NAME",
            "fleet clusters unban berlin",
            "lifted",
        ),
    ] {
        story.filled(page, typed, says);
    }
    // 1 where something cannot be made again: what other tests have left in the cluster may be of that.
    let rebuild = "fleet clusters rebuild b --restores";
    story.run(
        "fleet clusters rebuild berlin --restores",
        rebuild,
        &[0, 1],
        "kind: ResticBackup",
    );
    story.elsewhere(
        &["fleet clusters rebuild berlin --uid UID --restores"],
        "cli/tests/rebuild.rs",
        &[r#""rebuild", "berlin", "--uid", "lost", "--restores""#],
    );
    for page in [
        "fleet clusters forget",
        "fleet clusters forget NAME",
        "fleet clusters forget CLUSTER",
    ] {
        story.run(page, "fleet clusters forget berlin", &[2], "berlin");
    }
    // One that has not asked for the name of a cluster that is well.
    let accept = "fleet clusters accept b --uid 00000000-0000-0000-0000-000000000000";
    story.run("fleet clusters accept NAME --uid UID", accept, &[6], "cut it off");
    let rotate =
        ["begin", "activate", "retire"].map(|step| format!("fleet clusters rotate-authority {step}"));
    story.elsewhere(
        &rotate.each_ref().map(String::as_str),
        "tests/tests/e2e/authority.rs",
        &[
            r#""rotate-authority", "begin""#,
            r#""rotate-authority", "activate""#,
            r#""rotate-authority", "retire""#,
        ],
    );
}

/// What is kept outside, and what is sent to who helps.
pub fn files(story: &mut Story) {
    for (page, typed, says) in [
        (
            "fleet hub authorities",
            "fleet hub authorities",
            "BEGIN CERTIFICATE",
        ),
        ("fleet hub backup", "fleet hub backup one.db", "one.db: "),
        ("fleet hub backup FILE", "fleet hub backup two.db", "two.db: "),
        (
            "fleet hub backup '/srv/fleet/hub-$(date +%F).db'",
            "fleet hub backup three.db",
            "three.db: ",
        ),
        (
            "fleet hub backup hub-2026-11-26.db",
            "fleet hub backup hub-2026-11-26.db",
            "fleet hub restore",
        ),
        (
            "fleet kit --with-passwords --to kit.yaml",
            "fleet kit -n shop --with-passwords --to kit.yaml",
            "1 repository",
        ),
        (
            "fleet kit verify kit.yaml",
            "fleet kit verify kit.yaml",
            "shop/nas: opened",
        ),
        ("fleet bundle", "fleet bundle other.tar.gz", "0 could not be read"),
        (
            "fleet bundle support.tar.gz",
            "fleet bundle support.tar.gz",
            "0 could not be read",
        ),
    ] {
        story.filled(page, typed, says);
    }
    // Others on this bed may not be well.
    story.run("fleet check", "fleet check", &[0, 1, 3], "operator-leads");
}

/// The way back to a backup of the hub that was made before. Nobody who is logged in stays so.
pub fn put_back(story: &mut Story) {
    let login = bed().clusters()[0].kubeconfig();
    let replace = "fleet hub restore hub-2026-11-26.db --replace";
    let typed = |command: &str| format!("{command} --kubeconfig {}", login.display());
    // Refused, and the hub goes on.
    let without = typed("fleet hub restore hub-2026-11-26.db");
    let refused = "--replace puts the backup in its place";
    story.run("fleet hub restore", &without, &[2], refused);
    story.filled(replace, &typed(replace), "the hub serves");
}

/// What needs a cluster without anything, or one with another tool in it.
pub fn worlds(story: &mut Story) {
    for (page, more) in [
        ("fleet hub init", "--address hub.example.org"),
        ("fleet hub init --address hub.example.org", ""),
        (
            "fleet hub init --address hub.example.org --service load-balancer",
            "",
        ),
        (
            "fleet hub init --address hub.example.org --image registry.example.org/backup/hub:v0.1.0",
            "",
        ),
        (
            "fleet hub init --address hub.example.org --image registry.example.org/backup/hub:v0.1.0 --service load-balancer",
            "",
        ),
    ] {
        story.filled(
            page,
            &format!("{page} {more} --admin ann --print"),
            "kind: Deployment",
        );
    }
    Authority::create(&story.dir, "given").unwrap();
    let read = |end: &str| std::fs::read_to_string(story.dir.join(format!("given.{end}"))).unwrap();
    std::fs::write(story.dir.join("given.pem"), read("crt") + &read("key")).unwrap();
    let given = "fleet hub init --authority given.pem --address hub.example.org --admin ann --print";
    story.filled("fleet hub init --authority FILE", given, "authority.pem:");
    // It runs each line of README's blocks.
    story.elsewhere(
        &[
            "fleet hub init --kube-context '$FIRST' --address '$ADDRESS' --admin '$USER'",
            "fleet clusters join '$cluster' -o yaml",
            "fleet check --wait 2m",
        ],
        "tests/tests/e2e/charts/install.rs",
        &["README.md", "commands(&readme"],
    );
    for tool in ["volsync", "k8up", "velero", "cron", "original"] {
        let place = if tool == "original" { "" } else { " -n shop" };
        let steps = [
            format!("fleet migrate {tool}{place}"),
            format!("fleet migrate {tool}{place} --apply"),
            format!("fleet migrate finish {tool}{place} --yes"),
        ];
        let finish = format!(r#"&["finish", "{tool}", "--yes"]"#);
        story.elsewhere(
            &steps.each_ref().map(String::as_str),
            "tests/tests/e2e/migrate/tools.rs",
            &[&finish],
        );
    }
    // Without a namespace of one's own, as pages write it beside.
    let anywhere = [
        "fleet migrate k8up",
        "fleet migrate k8up --apply",
        "fleet migrate finish k8up",
        "fleet migrate velero --apply",
    ];
    story.elsewhere(&anywhere, "tests/tests/e2e/migrate/tools.rs", &[]);
    story.elsewhere(
        &[
            "fleet migrate TOOL",
            "fleet migrate TOOL --apply",
            "fleet migrate finish TOOL",
        ],
        "tests/tests/e2e/migrate/mod.rs",
        &["&[tool]", r#"&[tool, "--apply"]"#],
    );
    let host = "fleet migrate cron --env-file /etc/restic.env --namespace shop --name nas";
    story.elsewhere(
        &[host, &format!("{host} --apply")],
        "cli/tests/migrate.rs",
        &[r#""--env-file""#],
    );
}
