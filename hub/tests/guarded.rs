//! What people may not do at the door of a hub: try again and again, come with a certificate that was revoked, or count what
//! is outside of their scope.

use std::time::Duration;

use crate::harness::Fleet;
use crate::harness::own::Own;
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::{
    AuditRequest, BeginLoginRequest, BindRequest, Collection, InviteRequest, ListBindingsRequest,
    LoginRequest, RevokeCertificateRequest, Scope, StatusRequest, VerifyAuditRequest, WatchRequest,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

async fn admin(fleet: &Fleet) -> FleetAdminClient<Channel> {
    FleetAdminClient::new(fleet.view_as("admin/root").await)
}

async fn login(fleet: &Fleet, name: &str) -> MetadataValue<Ascii> {
    let invite = InviteRequest {
        name: name.to_owned(),
        ..InviteRequest::default()
    };
    let token = admin(fleet)
        .await
        .invite(invite)
        .await
        .unwrap()
        .into_inner()
        .token;
    let channel = fleet.connect(fleet.running.view.port(), None).await.unwrap();
    let request = LoginRequest {
        token,
        ..LoginRequest::default()
    };
    let opened = FleetAdminClient::new(channel).login(request).await.unwrap();
    format!("Bearer {}", opened.into_inner().session).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_log_in_are_bounded_before_anything_is_looked_up() {
    let fleet = Fleet::new().await;
    let port = fleet.running.view.port();
    let mut nobody = FleetAdminClient::new(fleet.connect(port, None).await.unwrap());
    let mut codes = Vec::new();
    for n in 0..100 {
        let guess = LoginRequest {
            token: format!("guess-{n}"),
            ..LoginRequest::default()
        };
        codes.push(nobody.login(guess).await.unwrap_err());
    }
    let count = |code: Code| codes.iter().filter(|status| status.code() == code).count();
    assert_eq!(codes[0].code(), Code::Unauthenticated);
    let (looked_at, throttled) = (count(Code::Unauthenticated), count(Code::ResourceExhausted));
    assert!(
        looked_at >= 60 && throttled >= 20 && looked_at + throttled == 100,
        "{looked_at}"
    );
    let last = codes.last().unwrap().message();
    assert!(
        last.contains("from this address") && last.contains("in a minute"),
        "{last}"
    );
    let begin = nobody
        .begin_login(BeginLoginRequest::default())
        .await
        .unwrap_err();
    assert_eq!(begin.code(), Code::ResourceExhausted);
    // People who are logged in are not held up.
    let mut root = admin(&fleet).await;
    root.list_bindings(ListBindingsRequest {}).await.unwrap();
}

/// The watch of a person, until it ends.
async fn watch(channel: Channel) -> impl Future<Output = Code> {
    let request = WatchRequest {
        collection: Collection::Clusters.into(),
        ..WatchRequest::default()
    };
    let mut view = FleetViewClient::new(channel);
    let mut events = view.watch(request).await.unwrap().into_inner();
    async move {
        let read = async {
            loop {
                match events.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
        ended.expect("the watch ends")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_person_is_revoked_and_what_is_open_by_it_ends() {
    let own = Own::new().await;
    let (lost, kept) = (own.operator().await, own.operator().await);
    let made = own.decisions().await;
    let serials: Vec<&str> = made
        .iter()
        .filter(|(what, _)| what == "operator-certificate")
        .map(|(_, after)| {
            after
                .split_once("certificate ")
                .unwrap()
                .1
                .split_once(',')
                .unwrap()
                .0
        })
        .collect();
    // The newest is the one by which the audit was read.
    assert_eq!(
        serials.len(),
        3,
        "each is in the audit, although the hub runs: {made:?}"
    );
    let by_lost = watch(lost.clone()).await;
    let mut root = FleetAdminClient::new(kept.clone());
    let revoke = |name: &str, serial: &str| RevokeCertificateRequest {
        name: name.to_owned(),
        serial: serial.to_owned(),
    };
    for (name, serial) in [("", ""), ("ann", "ab"), ("", "0ab"), ("", "AB"), ("a b", "")] {
        let refused = root.revoke_certificate(revoke(name, serial)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name:?} {serial:?}");
    }
    root.revoke_certificate(revoke("", serials[2])).await.unwrap();
    assert_eq!(by_lost.await, Code::Unauthenticated);
    let refused = FleetViewClient::new(lost)
        .status(StatusRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("revoked by ann"),
        "{}",
        refused.message()
    );
    let own = own.restart().await;
    let all = FleetAdminClient::new(own.operator().await);
    let by_all = watch(own.operator().await).await;
    let mut root = all.clone();
    root.revoke_certificate(revoke("ann", "")).await.unwrap();
    assert_eq!(by_all.await, Code::Unauthenticated);
    assert!(root.list_bindings(ListBindingsRequest {}).await.is_err());
    // One that is made later is good, although certificates begin a little before they are made.
    let mut later = FleetAdminClient::new(own.operator().await);
    let listed = later
        .list_bindings(ListBindingsRequest {})
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<(&str, &str)> = listed
        .revoked
        .iter()
        .map(|one| (one.name.as_str(), one.serial.as_str()))
        .collect();
    assert_eq!(listed, [("", serials[2]), ("ann", "")]);
    let whole = later.verify_audit(VerifyAuditRequest { known: 0 }).await.unwrap();
    assert_eq!(whole.into_inner().fault, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_audit_move_on_over_what_a_person_may_not_see_and_do_not_count_it() {
    let fleet = Fleet::new().await;
    let mut root = admin(&fleet).await;
    let bind = BindRequest {
        user: "ann".to_owned(),
        rights: "viewer".to_owned(),
        scope: Some(Scope {
            clusters: vec!["a".to_owned()],
            ..Scope::default()
        }),
        ..BindRequest::default()
    };
    root.bind(bind).await.unwrap();
    let session = login(&fleet, "ann").await;
    // More than the hub looks through for one page.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fleet.dir.path().join("fleet.db"));
    let store = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let query = "WITH RECURSIVE n(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
         INSERT INTO decision (id, at, who, what, subject, restic_id, before, after) \
         SELECT n, 5000000000000 + n, 'root', 'invite', 'bob', '', '', '' FROM n";
    sqlx::query(query).execute(&store).await.unwrap();
    let query = "UPDATE audit_chain SET head = 12000";
    sqlx::query(query).execute(&store).await.unwrap();
    let channel = fleet.connect(fleet.running.view.port(), None).await.unwrap();
    let mut view = FleetViewClient::new(channel);
    let mut ask = async |request: AuditRequest| {
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", session.clone());
        view.audit(request).await.map(tonic::Response::into_inner)
    };
    let (mut before, mut pages, mut seen) = (String::new(), 0, Vec::new());
    let mut cursors = Vec::new();
    loop {
        let request = AuditRequest {
            before,
            ..AuditRequest::default()
        };
        let page = ask(request).await.unwrap();
        pages += 1;
        assert!(pages < 10, "the pages move on");
        assert_eq!(page.last, 0, "the newest id counts what ann may not see");
        assert!(
            page.decisions
                .iter()
                .all(|one| one.id == 0 && one.hash.is_empty())
        );
        seen.extend(page.decisions.into_iter().map(|one| one.what));
        if page.next_before.is_empty() {
            break;
        }
        before = page.next_before;
        cursors.push(before.clone());
    }
    assert_eq!(seen, ["login"], "after {pages} pages");
    assert!(pages >= 3);
    let lengths: Vec<usize> = cursors.iter().map(String::len).collect();
    assert!(lengths.iter().all(|length| *length == lengths[0]));
    assert!(
        cursors
            .iter()
            .all(|cursor| !cursor.contains('/') && cursor.len() > 200)
    );
    for wrong in ["9000/x/1/2", "00ff", &cursors[0][2..]] {
        let request = AuditRequest {
            before: wrong.to_owned(),
            ..AuditRequest::default()
        };
        assert_eq!(
            ask(request).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{wrong}"
        );
    }
    let by_id = AuditRequest {
        after: Some(3),
        ..AuditRequest::default()
    };
    assert_eq!(ask(by_id).await.unwrap_err().code(), Code::InvalidArgument);
    let first = ask(AuditRequest::default()).await.unwrap();
    sqlx::query("UPDATE decision SET cluster = 'a', id = 12001, at = at + 9 WHERE id = 12000")
        .execute(&store)
        .await
        .unwrap();
    sqlx::query("UPDATE audit_chain SET head = 12001")
        .execute(&store)
        .await
        .unwrap();
    let request = AuditRequest {
        follow: first.follow,
        ..AuditRequest::default()
    };
    let new = ask(request).await.unwrap();
    assert_eq!(new.decisions.len(), 1);
    let request = AuditRequest {
        follow: new.follow,
        ..AuditRequest::default()
    };
    assert!(ask(request).await.unwrap().decisions.is_empty());
}
