//! Questions whether a snapshot is in a repository.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::testing::ApiServer;
use crate::testing::restic::{MemoryRestic, REPOSITORY_ID};
use crate::testing::spoke::{SHOP, Spoke, furnish};

fn asked(snapshot: &str) -> StoreProbe {
    StoreProbe {
        probe: 7,
        restic_id: REPOSITORY_ID.to_owned(),
        snapshot: snapshot.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_looked_for_in_a_listing_of_names_and_a_failure_says_nothing() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    let arguments = ["--leader-elect", "false", "--hub", "https://127.0.0.1:1"];
    let spoke = Spoke::start_as("", &api, &restic, &arguments).await;
    let at = Key::new(SHOP, "nas");
    api.until("the repository", |_| {
        let known = spoke.context.world.repositories.get(&at)?;
        known.status.as_ref()?.repository_id.as_ref().map(drop)
    })
    .await;
    let snapshot = |id: &str| serde_json::from_value(json!({ "id": id, "time": "2026-11-26T00:00:00Z" })).unwrap();
    let (here, other) = ("a".repeat(64), "b".repeat(64));
    restic.hold(vec![snapshot(&here), snapshot(&"c".repeat(64))]);
    let context = &spoke.context;
    let of = async |snapshot: &str| answer(context, restic.as_ref(), asked(snapshot)).await;
    for (snapshot, listed) in [(&here, true), (&other, false)] {
        let answer = of(snapshot).await;
        assert_eq!((answer.probe, answer.listed, answer.snapshots), (7, listed, 2));
        assert_eq!((answer.error.as_str(), answer.restic_id.as_str()), ("", REPOSITORY_ID));
    }
    assert!(!of("aa").await.error.is_empty(), "no id of a snapshot");
    assert!(
        !restic.questions().contains(&"snapshots"),
        "what restic has in its cache is not asked"
    );
    restic.fail(Some(crate::restic::Failure::WrongPassword));
    let failed = of(&here).await;
    assert!(failed.error.contains("shop/nas") && !failed.listed, "{failed:?}");
    spoke.stop().await;
}
