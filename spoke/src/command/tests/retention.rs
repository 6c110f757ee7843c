//! Runs of retention that are asked for.

use super::*;

/// Retention of repository nas for a policy of cluster a.
fn retain(restic_id: &str) -> What {
    What::RetainRepository(RetainRepository {
        repository: named("nas"),
        restic_id: restic_id.to_owned(),
        instead_of: "a/shop/nightly".to_owned(),
        approved: "hash".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn retention_for_a_cluster_that_is_away_is_a_suspended_job_of_the_repository_and_one_for_a_command() {
    let bench = Bench::new(&["--allow", "retain"]).await;
    let nas = bench.api.json::<ResticRepository>(SHOP, "nas");
    let id = nas["status"]["repositoryID"].as_str().unwrap().to_owned();
    bench.send("c0", HOUR, retain(&"f".repeat(64)));
    let refused = bench.until("c0", CommandState::Refused).await;
    assert!(
        refused.text.contains("not the repository that is meant"),
        "{}",
        refused.text
    );
    for _ in 0..2 {
        bench.send("c1", HOUR, retain(&id));
    }
    let name = "resticretention-nas-c1";
    let made = |api: &ApiServer| api.get::<Job>(SHOP, name);
    let job = bench.api.until("its Job", made).await;
    assert_eq!(job.spec.as_ref().unwrap().suspend, Some(true));
    assert_eq!(job.owner_references()[0].name, "nas");
    let annotation = |name: &str| job.annotations().get(name).map(String::as_str);
    assert_eq!(annotation(names::ANNOTATION_COMMAND), Some("c1"));
    assert_eq!(annotation(names::ANNOTATION_ON_BEHALF), Some("a/shop/nightly"));
    assert_eq!(annotation(names::ANNOTATION_APPROVE), Some("hash"));
    bench.send("c1", HOUR, retain(&id));
    let object = format!("Job shop/{name}");
    let accepted = |_: &ApiServer| {
        let reports = bench.spoke.context.commands.take_reports();
        reports.into_iter().find_map(|body| match body {
            Body::CommandReport(report) if report.id == "c1" && report.object == object => Some(report),
            _ => None,
        })
    };
    let report = bench.api.until("that it waits for the lock", accepted).await;
    assert_eq!(report.state(), CommandState::Accepted, "{report:?}");
    assert_eq!(bench.jobs(), [name]);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retention_for_another_cluster_needs_a_policy_for_the_repository_or_a_word_of_its_own() {
    for (arguments, has_policy, allowed) in [
        (&[][..], false, false),
        (&[][..], true, true),
        (&["--allow", "read,suspend"][..], true, false),
        (&["--allow", "retain"][..], false, true),
    ] {
        let bench = Bench::new(arguments).await;
        let nas = bench.api.json::<ResticRepository>(SHOP, "nas");
        let id = nas["status"]["repositoryID"].as_str().unwrap().to_owned();
        if has_policy {
            policy(&bench.api, "nightly");
            let world = &bench.spoke.context.world;
            let known = |_: &ApiServer| world.policies.get(&Key::new(SHOP, "nightly")).map(drop);
            bench.api.until("the policy is known", known).await;
        }
        bench.send("c1", HOUR, retain(&id));
        if allowed {
            bench.until("c1", CommandState::Accepted).await;
        } else {
            let refused = bench.until("c1", CommandState::Refused).await;
            assert!(refused.text.contains("add retain to --allow"), "{}", refused.text);
            assert_eq!(bench.jobs(), [] as [&str; 0]);
        }
        if has_policy && allowed {
            bench
                .api
                .edit::<GlobalRetentionPolicy>(SHOP, "nightly", |policy| {
                    policy["spec"]["suspend"] = json!(true)
                });
            let world = &bench.spoke.context.world;
            let known = |_: &ApiServer| {
                let policy = world.policies.get(&Key::new(SHOP, "nightly"))?;
                policy.spec.suspend.then_some(())
            };
            bench.api.until("that it is suspended", known).await;
            bench.send("c2", HOUR, retain(&id));
            bench.until("c2", CommandState::Refused).await;
        }
        bench.spoke.stop().await;
    }
}
