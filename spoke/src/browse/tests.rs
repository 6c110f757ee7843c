use proto::v1::spoke_message::Body;
use proto::v1::{BrowsePart, FindFiles, ListFolder, ObjectName, SnapshotRow};
use serde_json::json;

use super::rows::shortened;
use super::*;
use crate::testing::ApiServer;
use crate::testing::restic::MemoryRestic;
use crate::testing::spoke::{SHOP, Spoke, furnish};

#[test]
fn a_part_of_an_answer_is_bounded_whatever_a_snapshot_holds() {
    let few = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(shortened(&few), few);
    let many: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
    let short = shortened(&many);
    assert_eq!((short.len(), short[64].as_str()), (65, "… and 936 more"));
    let long = vec!["x".repeat(60_000); 3];
    assert_eq!(shortened(&long)[1..], ["… and 2 more"]);
    let row = SnapshotRow {
        paths: shortened(&long),
        tags: shortened(&long),
        ..SnapshotRow::default()
    };
    let parts = parts(std::iter::repeat_n(row, 5));
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
}

fn question(name: &str, what: What) -> Question {
    let repository = Some(ObjectName {
        namespace: SHOP.to_owned(),
        name: name.to_owned(),
    });
    Question {
        repository,
        what: Some(what),
    }
}

/// All parts of the answer, the last one included.
async fn ask(api: &ApiServer, spoke: &Spoke, id: u64, question: Question) -> Vec<BrowsePart> {
    let browsing = &spoke.context.browsing;
    browsing.ask(Browse {
        id,
        question: Some(question),
        who: "ann".to_owned(),
    });
    let mut parts = Vec::new();
    api.until("the end of an answer", |_| {
        for body in browsing.take() {
            if let Body::BrowsePart(part) = body {
                browsing.more(id, 1);
                parts.push(part);
            }
        }
        parts.last().is_some_and(|part| part.last).then_some(())
    })
    .await;
    parts
}

async fn bench(arguments: &[&str]) -> (ApiServer, Arc<MemoryRestic>, Spoke) {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    let snapshot = |digit: &str, host: &str, day: u8| {
        serde_json::from_value::<Snapshot>(json!({
            "id": digit.repeat(64), "time": format!("2026-11-{day:02}T00:00:00Z"), "hostname": host,
            "tags": ["fleet.cluster=a"], "paths": ["/backup"],
        }))
        .unwrap()
    };
    restic.hold(vec![
        snapshot("a", "one", 1),
        snapshot("b", "two", 3),
        snapshot("c", "one", 2),
    ]);
    let files = (0..450).map(|n| FileNode {
        path: format!("/backup/{n:03}"),
        kind: "file".to_owned(),
        size: n,
        mtime: None,
    });
    restic.hold_files(files.collect());
    let all: Vec<&str> = ["--leader-elect", "false", "--hub", "https://127.0.0.1:1"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let spoke = Spoke::start_as("", &api, &restic, &all).await;
    api.until("the repository", |_| {
        let at = Key::new(SHOP, "nas");
        spoke.context.world.repositories.get(&at).map(drop)
    })
    .await;
    (api, restic, spoke)
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_listed_newest_first_and_bounded() {
    let (api, _, spoke) = bench(&[]).await;
    let list = |host: &str, limit| {
        question(
            "nas",
            What::ListSnapshots(ListSnapshots {
                host: host.to_owned(),
                limit,
                ..ListSnapshots::default()
            }),
        )
    };
    let ids = |parts: &[BrowsePart]| {
        let rows = parts.iter().filter_map(|part| part.part.as_ref());
        let rows = rows.flat_map(|part| part.snapshots.iter().map(|s| s.id[..1].to_owned()));
        rows.collect::<String>()
    };
    let cut = |parts: &[BrowsePart]| parts.iter().any(|p| p.part.as_ref().is_some_and(|p| p.cut));
    let all = ask(&api, &spoke, 1, list("", 0)).await;
    assert_eq!((ids(&all).as_str(), cut(&all)), ("bca", false));
    let two = ask(&api, &spoke, 2, list("", 2)).await;
    assert_eq!((ids(&two).as_str(), cut(&two)), ("bc", true));
    assert_eq!(ids(&ask(&api, &spoke, 3, list("one", 0)).await), "ca");
    let wrong = ask(
        &api,
        &spoke,
        4,
        question("none", What::ListSnapshots(ListSnapshots::default())),
    )
    .await;
    assert!(
        wrong[0].error.contains("no ResticRepository shop/none"),
        "{wrong:?}"
    );
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_first_which_snapshot_it_is_about() {
    let (api, restic, spoke) = bench(&[]).await;
    let folder = |snapshot: &str, path: &str| {
        question(
            "nas",
            What::ListFolder(ListFolder {
                snapshot: snapshot.to_owned(),
                path: path.to_owned(),
            }),
        )
    };
    let parts = ask(&api, &spoke, 1, folder("bbbbbbbb", "/backup")).await;
    let first = parts[0].part.as_ref().unwrap();
    assert_eq!((first.snapshots[0].host.as_str(), first.files.len()), ("two", 0));
    let rows: Vec<usize> = parts
        .iter()
        .filter_map(|p| Some(p.part.as_ref()?.files.len()))
        .collect();
    assert_eq!(rows, [0, 200, 200, 50]);
    for (snapshot, path, why) in [
        ("bbbb", "/backup", "at least 8"),
        ("dddddddd", "/backup", "no snapshot"),
        ("--help00", "/backup", "no snapshot"),
        ("bbbbbbbb", "backup", "not absolute"),
    ] {
        let wrong = ask(&api, &spoke, 2, folder(snapshot, path)).await;
        let error = &wrong.last().unwrap().error;
        assert!(error.contains(why), "{snapshot} {path}: {error}");
    }
    let failing = crate::restic::Failure::WrongPassword;
    restic.fail(Some(failing));
    let find = What::FindFiles(FindFiles {
        snapshot: "bbbbbbbb".to_owned(),
        pattern: "*".to_owned(),
    });
    let failed = ask(&api, &spoke, 3, question("nas", find)).await;
    assert!(
        failed[0].last && failed[0].error.contains("password"),
        "{failed:?}"
    );
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_is_refused_and_restic_is_not_asked() {
    let (api, restic, spoke) = bench(&["--allow", "run"]).await;
    let before = restic
        .questions()
        .iter()
        .filter(|question| **question == "snapshots")
        .count();
    let refused = ask(
        &api,
        &spoke,
        1,
        question("nas", What::ListSnapshots(ListSnapshots::default())),
    )
    .await;
    let [refused] = refused.as_slice() else {
        panic!("{refused:?}")
    };
    assert!(
        refused.refused && refused.error.contains("add read to --allow"),
        "{refused:?}"
    );
    let after = restic
        .questions()
        .iter()
        .filter(|question| **question == "snapshots")
        .count();
    assert_eq!(before, after);
    spoke.stop().await;
}
