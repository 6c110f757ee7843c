//! Snapshots and files read through a spoke, over real mTLS: part by part, no faster than they are read, in scope only.

use crate::harness::{Fleet, ID, Spoke, repository};
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AnswerPart, AuditRequest, Browse, BrowsePart, FetchFile, FetchFileRequest, FileRow, ListFolder,
    ListFolderRequest, ObjectName, ReadOptions, SnapshotRow,
};
use tonic::Code;
use tonic::transport::Channel;

async fn member(fleet: &Fleet) -> Spoke {
    let spoke = fleet.spoke("a").await;
    spoke.tell(vec![repository(ID)]).await;
    fleet
        .until("the repository", async |fleet| {
            fleet
                .running
                .hub
                .read(|inventory| inventory.index().binding("a/ns/nas").is_some())
        })
        .await;
    spoke
}

fn options(cluster: &str) -> Option<ReadOptions> {
    Some(ReadOptions {
        cluster: cluster.to_owned(),
        repository: Some(ObjectName {
            namespace: "ns".to_owned(),
            name: "nas".to_owned(),
        }),
    })
}

fn folder(cluster: &str) -> ListFolderRequest {
    ListFolderRequest {
        options: options(cluster),
        question: Some(ListFolder {
            snapshot: "abcdef01".to_owned(),
            path: "/data".to_owned(),
        }),
    }
}

async fn fetch(control: &mut FleetControlClient<Channel>) -> tonic::Streaming<AnswerPart> {
    let request = FetchFileRequest {
        options: options("a"),
        question: Some(FetchFile {
            snapshot: "abcdef01".to_owned(),
            path: "/data/a".to_owned(),
        }),
    };
    control.fetch_file(request).await.unwrap().into_inner()
}

async fn asked(spoke: &mut Spoke) -> Browse {
    spoke
        .until("a question", |told| match told {
            Told::Browse(browse) => Some(browse.clone()),
            _ => None,
        })
        .await
}

async fn say(spoke: &Spoke, id: u64, part: AnswerPart) {
    let part = BrowsePart {
        id,
        part: Some(part),
        ..BrowsePart::default()
    };
    spoke.say(Body::BrowsePart(part)).await;
}

async fn end(spoke: &Spoke, id: u64, error: &str, refused: bool) {
    let part = BrowsePart {
        id,
        last: true,
        error: error.to_owned(),
        refused,
        ..BrowsePart::default()
    };
    spoke.say(Body::BrowsePart(part)).await;
}

fn about() -> AnswerPart {
    AnswerPart {
        snapshots: vec![SnapshotRow {
            id: "abcdef01".repeat(8),
            ..SnapshotRow::default()
        }],
        ..AnswerPart::default()
    }
}

fn data(byte: u8) -> AnswerPart {
    AnswerPart {
        data: vec![byte; 1000],
        ..AnswerPart::default()
    }
}

async fn more(spoke: &mut Spoke, id: u64) -> u32 {
    spoke
        .until("room for more", |told| match told {
            Told::BrowseMore(more) if more.id == id => Some(more.parts),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_question_is_in_the_audit_before_it_is_asked_and_its_answer_comes_in_parts() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut control = fleet.control("operator/ann").await;
    let mut answer = control.list_folder(folder("a")).await.unwrap().into_inner();
    let browse = asked(&mut spoke).await;
    assert_eq!(browse.who, "ann");
    let audit = fleet
        .operator()
        .await
        .audit(AuditRequest::default())
        .await
        .unwrap()
        .into_inner();
    let text = format!("{audit:?}");
    assert!(text.contains("list abcdef01:/data a/ns/nas"), "{text}");
    say(&spoke, browse.id, about()).await;
    let row = FileRow {
        path: "/data/a".to_owned(),
        ..FileRow::default()
    };
    let files = AnswerPart {
        files: vec![row],
        ..AnswerPart::default()
    };
    say(&spoke, browse.id, files).await;
    end(&spoke, browse.id, "", false).await;
    assert_eq!(answer.message().await.unwrap().unwrap().snapshots.len(), 1);
    assert_eq!(answer.message().await.unwrap().unwrap().files[0].path, "/data/a");
    assert!(answer.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_that_goes_stops_the_cluster_and_a_slow_one_slows_it() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut control = fleet.control("operator/ann").await;
    let mut answer = fetch(&mut control).await;
    let id = asked(&mut spoke).await.id;
    say(&spoke, id, about()).await;
    answer.message().await.unwrap().unwrap();
    assert_eq!(more(&mut spoke, id).await, 1);
    say(&spoke, id, data(7)).await;
    assert_eq!(answer.message().await.unwrap().unwrap().data, vec![7; 1000]);
    assert_eq!(more(&mut spoke, id).await, 1);
    drop(answer);
    // It is found at the next part.
    for _ in 0..8 {
        say(&spoke, id, data(8)).await;
    }
    while more(&mut spoke, id).await != 0 {}
}

#[tokio::test]
async fn a_cluster_that_is_away_refuses_or_breaks_off_is_told() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut control = fleet.control("operator/ann").await;
    let mut answer = control.list_folder(folder("a")).await.unwrap().into_inner();
    let id = asked(&mut spoke).await.id;
    end(&spoke, id, "add read to --allow", true).await;
    let refused = answer.message().await.unwrap_err();
    assert!(
        refused.code() == Code::PermissionDenied && refused.message().contains("--allow"),
        "{refused}"
    );
    let mut answer = control.list_folder(folder("a")).await.unwrap().into_inner();
    let id = asked(&mut spoke).await.id;
    // Without saying which snapshot it is about.
    say(&spoke, id, data(1)).await;
    assert_eq!(answer.message().await.unwrap_err().code(), Code::PermissionDenied);
    let mut answer = control.list_folder(folder("a")).await.unwrap().into_inner();
    asked(&mut spoke).await;
    drop(spoke);
    assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
    fleet
        .until("the cluster is away", async |fleet| {
            fleet.running.hub.commands.connected().await.is_empty()
        })
        .await;
    let mut answer = control.list_folder(folder("a")).await.unwrap().into_inner();
    let away = answer.message().await.unwrap_err();
    assert!(
        away.code() == Code::Unavailable && away.message().contains("not connected"),
        "{away}"
    );
    let unknown = control.list_folder(folder("z")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut viewer = fleet.control("viewer/vic").await;
    assert_eq!(
        viewer.list_folder(folder("a")).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}
