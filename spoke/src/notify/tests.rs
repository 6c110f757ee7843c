use std::collections::BTreeSet;

use crds::conditions::{Conditions, reasons, types};
use crds::notifications::{SlackConfig, WebhookConfig};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use serde_json::{Value, json};

use super::*;

pub(super) fn webhook(url: &str) -> Target {
    Target::Webhook(WebhookConfig {
        url: url.to_owned(),
        ..WebhookConfig::default()
    })
}

pub(super) fn subject(namespace: &str) -> Subject {
    Subject {
        kind: "ResticBackup",
        key: Key::new(namespace, "orders"),
        uid: "uid".to_owned(),
        cluster: "berlin".to_owned(),
    }
}

fn change(run: &str, occasion: Occasion) -> Change {
    Change {
        occasion,
        run: run.to_owned(),
        reason: Some("ResticFailed".to_owned()),
        message: "a \"quoted\" {{name}} & <text>".to_owned(),
        figures: Some(Figures {
            started: Timestamp::from_second(1000).ok(),
            duration: Some(330.0),
            size: Some(2_469_606_195),
            files: Some(12543),
            snapshot: Some("0123456789abcdef".to_owned()),
            last_success: Timestamp::from_second(900).ok(),
        }),
    }
}

pub(super) fn delivery(namespace: &str, run: &str, target: Target) -> Delivery {
    let change = change(run, Occasion::Failure);
    let notification = Notification::new(&subject(namespace), change, Timestamp::UNIX_EPOCH);
    Delivery {
        notification: Arc::new(notification),
        target,
    }
}

fn config(text: Value) -> NotificationConfig {
    serde_json::from_value(text).unwrap()
}

fn status<R: Notifying>(text: Value) -> R::Status
where
    R::Status: serde::de::DeserializeOwned,
{
    serde_json::from_value(text).unwrap()
}

fn run(job: &str, result: &str, second: u32) -> Value {
    json!({ "job": job, "result": result, "message": "m", "completionTime": format!("2026-11-26T00:00:{second:02}Z") })
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": "2026-11-26T00:00:00Z" })
}

fn occasions<R: Notifying>(old: Value, new: Value) -> Vec<(Occasion, String)>
where
    R::Status: serde::de::DeserializeOwned,
{
    let changes = R::changes(&status::<R>(old), &status::<R>(new));
    changes
        .into_iter()
        .map(|change| (change.occasion, change.run))
        .collect()
}

fn only<R: Notifying>(old: Value, new: Value) -> Option<Occasion>
where
    R::Status: serde::de::DeserializeOwned,
{
    let found = occasions::<R>(old, new);
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|(occasion, _)| *occasion)
}

#[test]
fn each_run_of_a_backup_is_told_of_once() {
    let idle = json!([condition("Progressing", "False", "Idle")]);
    let before = json!({ "lastBackup": run("j1", "Succeeded", 1), "conditions": idle });
    for (result, occasion) in [
        ("Succeeded", Occasion::Success),
        ("PartiallyFailed", Occasion::Partial),
        ("Failed", Occasion::Failure),
    ] {
        let after = json!({ "lastBackup": run("j2", result, 2), "conditions": idle });
        assert_eq!(
            only::<ResticBackup>(before.clone(), after.clone()),
            Some(occasion)
        );
        assert_eq!(only::<ResticBackup>(after.clone(), after.clone()), None);
        let mut corrected = after.clone();
        corrected["lastBackup"]["message"] = json!("more is known");
        corrected["lastBackup"]["bytesAdded"] = json!(1);
        assert_eq!(only::<ResticBackup>(after, corrected), None, "the same run");
    }
}

#[test]
fn a_run_that_was_over_before_the_backup_was_first_looked_at_is_no_news() {
    let over = json!({ "lastBackup": run("j1", "Failed", 1), "conditions": [condition("Progressing", "False", "Idle")] });
    // As the original operator has left it.
    let before = json!({ "conditions": [condition("Ready", "True", "BackupConfigured")] });
    assert_eq!(only::<ResticBackup>(before, over.clone()), None);
    let seen = json!({ "conditions": [condition("Progressing", "True", "BackupRunning")] });
    assert_eq!(only::<ResticBackup>(seen, over.clone()), Some(Occasion::Failure));
    // Its pod is gone: at the first look, its result waits for news of the pod.
    let mut settling = json!({ "conditions": [condition("Ready", "True", "BackupConfigured"),
                               condition("Progressing", "False", "Idle"), condition("Degraded", "False", "NoRunYet")] });
    for number in [1, 2] {
        settling["conditions"][number]["lastTransitionTime"] = json!("2026-11-26T00:00:05Z");
    }
    assert_eq!(only::<ResticBackup>(settling.clone(), over.clone()), None);
    // One that has run under the new operator, too, whose condition Progressing has moved when its Job was over.
    settling["conditions"][2]["lastTransitionTime"] = json!("2026-11-25T00:00:00Z");
    assert_eq!(only::<ResticBackup>(settling, over), Some(Occasion::Failure));
}

#[test]
fn runs_that_ended_between_two_statuses_are_counted() {
    let counters =
        |total: i32| json!({ "totalBackups": total, "successfulBackups": total, "failedBackups": 0 });
    let old = json!({ "statistics": counters(1), "lastBackup": run("j1", "Succeeded", 1),
                      "conditions": [condition("Progressing", "False", "Idle")] });
    let new = json!({ "statistics": counters(4), "lastBackup": run("j4", "Succeeded", 4) });
    let changes = ResticBackup::changes(&status::<ResticBackup>(old), &status::<ResticBackup>(new));
    assert!(changes[0].message.ends_with("ended meanwhile: 2"), "{changes:?}");
}

#[test]
fn conditions_are_told_of_when_they_become_true() {
    for (type_, occasion) in [("Stale", Occasion::Stale), ("Suspicious", Occasion::Suspicious)] {
        let state = |status| json!({ "conditions": [condition(type_, status, "Because")] });
        assert_eq!(only::<ResticBackup>(json!({}), state("True")), Some(occasion));
        assert_eq!(
            only::<ResticBackup>(state("False"), state("True")),
            Some(occasion)
        );
        assert_eq!(only::<ResticBackup>(state("True"), state("True")), None);
        assert_eq!(only::<ResticBackup>(state("True"), state("False")), None);
        assert_eq!(only::<ResticBackup>(json!({}), state("Unknown")), None);
    }
}

#[test]
fn a_second_period_without_a_success_is_told_of_on_another_day() {
    let id = |day: &str| {
        let mut stale = condition("Stale", "True", "NoSuccess");
        stale["lastTransitionTime"] = json!(format!("{day}T03:00:00Z"));
        let new = json!({ "lastSuccessfulBackup": "2026-11-20T00:00:00Z", "conditions": [stale] });
        let mut changes =
            ResticBackup::changes(&status::<ResticBackup>(json!({})), &status::<ResticBackup>(new));
        Notification::new(&subject("shop"), changes.remove(0), Timestamp::UNIX_EPOCH).id
    };
    assert_eq!(id("2026-11-23"), id("2026-11-23"));
    assert_ne!(id("2026-11-23"), id("2026-11-25"));
}

#[test]
fn the_end_of_a_restore_is_told_of_once() {
    let state = |phase: &str| json!({ "phase": phase, "conditions": [condition("Ready", "False", phase)] });
    let told = |old, new| only::<ResticRestore>(old, new);
    assert_eq!(told(json!({}), state("Pending")), None);
    assert_eq!(
        told(state("InProgress"), state("Completed")),
        Some(Occasion::RestoreCompleted)
    );
    assert_eq!(
        told(state("Pending"), state("Failed")),
        Some(Occasion::RestoreFailed)
    );
    assert_eq!(told(state("Completed"), state("Completed")), None);
}

#[test]
fn damage_is_told_of_and_other_trouble_of_a_repository_is_not() {
    let ready = |reason: &str| json!({ "conditions": [condition("Ready", "False", reason)] });
    let degraded = |reason: &str| json!({ "conditions": [condition("Degraded", "True", reason)] });
    let told = |old, new| only::<ResticRepository>(old, new);
    for damage in [
        reasons::REPOSITORY_DAMAGED,
        reasons::REPOSITORY_MISSING,
        reasons::REPOSITORY_CHANGED,
    ] {
        assert_eq!(told(json!({}), ready(damage)), Some(Occasion::Damage));
        assert_eq!(
            told(ready("RepositoryAccessible"), degraded(damage)),
            Some(Occasion::Damage)
        );
        assert_eq!(told(ready(damage), ready(damage)), None);
    }
    assert_eq!(told(json!({}), ready(reasons::REPOSITORY_UNREACHABLE)), None);
    assert_eq!(told(json!({}), degraded(reasons::REPOSITORY_LOCKED)), None);
}

#[test]
fn a_retention_run_is_told_of_by_its_result_and_a_plan_that_waits_as_that() {
    let ended = |second: u32, result: &str, degraded: &str, waits: bool| {
        let approval = condition(
            "ApprovalRequired",
            if waits { "True" } else { "False" },
            "OverGuard",
        );
        json!({ "lastRun": format!("2026-11-26T00:00:{second:02}Z"), "lastRunResult": result, "lastRunToken": second,
                "plan": waits.then_some("abcd"), "conditions": [condition("Degraded", degraded, "R"), approval] })
    };
    let told = |old: &Value, new: &Value| only::<GlobalRetentionPolicy>(old.clone(), new.clone());
    let nothing = json!({});
    let applied = ended(1, "Applied", "False", false);
    assert_eq!(told(&nothing, &applied), Some(Occasion::Success));
    assert_eq!(told(&applied, &applied), None);
    assert_eq!(
        told(&nothing, &ended(1, "Applied", "True", false)),
        Some(Occasion::Partial)
    );
    assert_eq!(
        told(&applied, &ended(2, "Failed", "True", false)),
        Some(Occasion::Failure)
    );
    let waits = ended(2, "ApprovalRequired", "True", true);
    assert_eq!(told(&applied, &waits), Some(Occasion::ApprovalWanted));
    assert_eq!(
        told(&waits, &ended(3, "ApprovalRequired", "True", true)),
        None,
        "the same plan"
    );
}

#[test]
fn what_is_switched_off_gets_nothing() {
    let off = config(json!({
        "pushgateway": { "enabled": false, "url": "http://p" },
        "ntfy": { "enabled": false, "serverURL": "http://n", "topic": "t" },
        "email": { "enabled": false, "smtpServer": "h", "from": "a@b", "to": "c@d" },
        "webhook": { "enabled": false, "url": "http://w" },
        "slack": { "enabled": false, "credentialsSecretRef": { "name": "s" } },
    }));
    let failed = change("1", Occasion::Failure);
    let notification = Notification::new(&subject("shop"), failed, Timestamp::UNIX_EPOCH);
    assert!(target::wanted(&off, &notification).is_empty());
}

#[test]
fn targets_are_those_that_are_on_and_want_the_occasion() {
    let all = config(json!({
        "pushgateway": { "url": "http://p" }, "ntfy": { "serverURL": "http://n", "topic": "t", "onlyOnFailure": true },
        "email": { "enabled": false }, "webhook": { "url": "http://w" }, "slack": { "credentialsSecretRef": { "name": "s" }, "onlyOnFailure": true },
    }));
    let names = |occasion, figures: bool| {
        let mut change = change("1", occasion);
        change.figures = change.figures.filter(|_| figures);
        let notification = Notification::new(&subject("shop"), change, Timestamp::UNIX_EPOCH);
        let targets = target::wanted(&all, &notification);
        targets.iter().map(Target::name).collect::<Vec<_>>()
    };
    assert_eq!(names(Occasion::Success, true), ["pushgateway", "webhook"]);
    assert_eq!(
        names(Occasion::Partial, true),
        ["pushgateway", "ntfy", "webhook", "slack"]
    );
    assert_eq!(names(Occasion::Stale, false), ["ntfy", "webhook", "slack"]);
}

#[test]
fn receivers_with_other_secrets_or_recipients_do_not_wait_for_each_other() {
    let place = |name: &str, more: Value| {
        let mut receiver = json!({ "url": "http://h", "serverURL": "http://h", "topic": "t", "smtpServer": "h",
            "to": "a@b", "credentialsSecretRef": { "name": "one" } });
        for (field, value) in more.as_object().unwrap() {
            receiver[field] = value.clone();
        }
        let all = config(json!({ name: receiver }));
        let notification = &delivery("shop", "1", webhook("http://w")).notification;
        let targets = target::wanted(&all, notification);
        let [target] = targets.as_slice() else {
            panic!("{targets:?}")
        };
        target.place()
    };
    for name in ["pushgateway", "ntfy", "email", "webhook", "slack"] {
        let other = json!({ "credentialsSecretRef": { "name": "other" } });
        assert_eq!(
            place(name, json!({})),
            place(name, json!({ "onlyOnFailure": true }))
        );
        assert_ne!(place(name, json!({})), place(name, other), "{name}");
    }
    assert_ne!(place("email", json!({})), place("email", json!({ "to": "c@d" })));
    assert_ne!(
        place("slack", json!({})),
        place("slack", json!({ "channel": "#ops" }))
    );
}

/// Conditions, messages and generations change all the time; runs end now and then.
#[test]
fn ten_thousand_changes_of_a_status_make_as_many_notifications_as_runs() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (notifier, mut queue) = Notifier::new(metrics);
    let config = config(json!({ "webhook": { "url": "http://w" } }));
    let seen = json!({ "conditions": [condition("Progressing", "False", "Idle")] });
    let (mut old, mut runs) = (status::<ResticBackup>(seen), BTreeSet::new());
    for n in 0..10_000i64 {
        let mut new = old.clone();
        let now = Timestamp::from_second(1_700_000_000 + n / 160).unwrap();
        Conditions::at(&mut new.conditions, Some(n), now)
            .set(
                types::READY,
                n % 3 == 0,
                reasons::BACKUP_CONFIGURED,
                format!("message {n}"),
            )
            .set(types::PROGRESSING, n % 2 == 0, reasons::BACKUP_RUNNING, "running")
            .set(types::DEGRADED, n % 5 == 0, reasons::BACKUP_FAILED, "failed")
            .set(types::STALE, n % 2 == 0, "NoSuccess", "comes and goes");
        if n % 100 == 0 {
            let job = format!("orders-{n}");
            let text = run(&job, if n % 200 == 0 { "Failed" } else { "PartiallyFailed" }, 1);
            new.last_backup = serde_json::from_value(text).unwrap();
            runs.insert(job);
        }
        let changes = ResticBackup::changes(&old, &new);
        notifier.publish(&subject("shop"), &config, changes, now);
        old = new;
    }
    let mut received = Vec::new();
    while let Ok(delivery) = queue.try_recv() {
        received.push(delivery.notification.change.clone());
    }
    let (stale, ended): (Vec<_>, Vec<_>) = received.iter().partition(|c| c.occasion == Occasion::Stale);
    assert_eq!((runs.len(), ended.len()), (100, 100));
    assert_eq!(stale.len(), 1, "stale since the same success, on one day");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (notifier, _queue) = Notifier::new(metrics.clone());
    let config = config(json!({ "webhook": { "url": "http://w" } }));
    for n in 0..QUEUE + 3 {
        let changes = vec![change(&n.to_string(), Occasion::Failure)];
        notifier.publish(&subject("shop"), &config, changes, Timestamp::UNIX_EPOCH);
    }
    let text = metrics.render();
    let line = "fleet_notifications_total{outcome=\"dropped\",target=\"webhook\"} 3";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_template_takes_values_as_text_and_nothing_else() {
    let notification = &delivery("shop", "1", webhook("http://w")).notification;
    let made = render::template(r#"{"text": "{{ title }}: {{message}}", "n": 1}"#, notification).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(
        made["text"],
        "shop/orders - Backup Failed: a \"quoted\" {{name}} & <text>"
    );
    let unknown = render::template(r#"{"text": "{{password}}"}"#, notification);
    assert_eq!(unknown, Err(render::BadTemplate::Unknown("password".to_owned())));
    assert!(matches!(
        render::template("{{title}}", notification),
        Err(render::BadTemplate::NotJson(_))
    ));
    // Each name that the schema allows is there.
    for name in crds::notifications::PLACEHOLDERS {
        let text = format!("{{\"x\": \"{{{{{name}}}}}\"}}");
        assert!(render::template(&text, notification).is_ok(), "{name}");
    }
}

#[test]
fn bodies_are_what_receivers_document() {
    let notification = &delivery("shop", "1", webhook("http://w")).notification;
    let slack = render::slack(
        &SlackConfig {
            channel: Some("#ops".to_owned()),
            ..SlackConfig::default()
        },
        notification,
    );
    let text = slack["text"].as_str().unwrap();
    assert!(
        text.starts_with("*shop/orders - Backup Failed*\nResticFailed: a "),
        "{text}"
    );
    assert!(text.contains("&amp; &lt;text&gt;") && slack["channel"] == "#ops");
    let document = render::document(notification);
    assert_eq!(
        (&document["type"], &document["data"]["sizeBytes"]),
        (&json!("failure"), &json!(2_469_606_195i64))
    );
    assert!(document["data"].get("type").is_none());
    let figures = render::pushgateway(notification);
    assert!(figures.contains("\nbackup_status 0\n") && figures.contains("\nbackup_duration_seconds 330\n"));
    assert!(
        figures.contains("\nbackup_start_timestamp 1000\n")
            && figures.contains("\nbackup_snapshot_files_total 12543\n")
    );
}

#[test]
fn ntfy_takes_the_priority_of_its_config_whatever_is_reported() {
    let made = |occasion: Occasion, more: Value| {
        let mut config = json!({ "serverURL": "http://n", "topic": "t" });
        let more = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(more);
        let config = serde_json::from_value(config).unwrap();
        let notification = Notification::new(&subject("shop"), change("1", occasion), Timestamp::UNIX_EPOCH);
        let body = render::ntfy(&config, &notification);
        (body["priority"].clone(), body["tags"].clone())
    };
    for (occasion, sign) in [
        (Occasion::Success, "white_check_mark"),
        (Occasion::Failure, "x"),
        (Occasion::Stale, "warning"),
    ] {
        assert_eq!(made(occasion, json!({})), (json!(4), json!([sign])));
        let own = json!({ "priority": 2, "tags": ["floppy_disk"] });
        assert_eq!(made(occasion, own), (json!(2), json!(["floppy_disk"])));
    }
}
