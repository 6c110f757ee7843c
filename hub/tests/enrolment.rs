//! Clusters that join a hub with an authority of its own, and leave it.

use std::time::Duration;

use crate::harness::own::{Holder, Own, end, keep, renew, request};
use crate::harness::{ID, Spoke, keep_last, policy, repository};
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AcceptClusterRequest, BanClusterRequest, CertificateRequest, Collection, EnrolRequest, IssuedCertificate,
    ListRequest, UnbanClusterRequest, WatchRequest, row,
};
use tonic::Code;

async fn state(own: &Own, cluster: &str) -> String {
    let request = ListRequest {
        collection: Collection::Clusters.into(),
        ..ListRequest::default()
    };
    let rows = own.view().await.list(request).await.unwrap().into_inner().rows;
    let found = rows.into_iter().find_map(|row| match row.body {
        Some(row::Body::Cluster(row)) if row.name == cluster => Some(row.state),
        _ => None,
    });
    found.unwrap_or_default()
}

async fn ban(own: &Own, cluster: &str) -> bool {
    let request = BanClusterRequest {
        cluster: cluster.to_owned(),
        reason: "stolen".to_owned(),
    };
    own.clusters()
        .await
        .ban_cluster(request)
        .await
        .unwrap()
        .into_inner()
        .was_connected
}

async fn unban(own: &Own, cluster: &str, rejoin: bool) {
    let request = UnbanClusterRequest {
        cluster: cluster.to_owned(),
        rejoin,
    };
    own.clusters().await.unban_cluster(request).await.unwrap();
}

fn expires(certificate: &IssuedCertificate) -> i64 {
    proto::certificate::read(&certificate.chain[0]).unwrap().expires
}

#[tokio::test]
async fn a_cluster_joins_with_a_token_and_no_certificate_is_made_by_hand() {
    let own = Own::new().await;
    let token = own.token("a").await;
    let (key, csr) = request();
    let certificate = own.enrol("a", &token.token, &csr).await.unwrap();
    let authority = proto::certificate::read(&certificate.authorities[0]).unwrap();
    assert_eq!(token.pin, hex::encode(authority.key));
    let left = expires(&certificate) - hub::now();
    assert!((86_000_000..=86_400_000).contains(&left), "a day: {left}");
    let holder = Holder { key, certificate };
    let spoke = own.connect("a", &holder).await.unwrap();
    assert_eq!(spoke.welcome.cluster, "a");
    spoke.tell(vec![repository(ID)]).await;
    own.until("a report", async || state(&own, "a").await == "connected")
        .await;
    let stored = std::fs::read(own.dir.path().join("fleet.db")).unwrap();
    let secret = token.token.as_bytes();
    assert!(
        !stored.windows(secret.len()).any(|part| part == secret),
        "only the token's hash is kept"
    );
    let own = own.restart().await;
    assert!(
        own.connect("a", &holder).await.is_ok(),
        "the authority is the same after a restart"
    );
}

#[tokio::test]
async fn a_lost_answer_costs_no_token_and_another_key_gets_none() {
    let own = Own::new().await;
    let token = own.token("a").await.token;
    let (_, csr) = request();
    let first = own.enrol("a", &token, &csr).await.unwrap();
    assert_eq!(own.enrol("a", &token, &csr).await.unwrap(), first);
    let own = own.restart().await;
    assert_eq!(
        own.enrol("a", &token, &csr).await.unwrap(),
        first,
        "it is durable"
    );
    let (_, other) = request();
    let refused = own.enrol("a", &token, &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("used already, with another key"),
        "{refused}"
    );
    let decisions = own.decisions().await;
    let told = |what: &str| decisions.iter().filter(|(found, _)| found == what).count();
    assert_eq!(
        (told("join-token"), told("enrol"), told("enrol-refused")),
        (1, 1, 1),
        "{decisions:?}"
    );
}

#[tokio::test]
async fn two_keys_that_race_for_a_token_get_one_certificate() {
    let own = Own::new().await;
    let token = own.token("a").await.token;
    let requests: Vec<Vec<u8>> = (0..6).map(|_| request().1).collect();
    let attempts = requests.iter().map(|csr| own.enrol("a", &token, csr));
    let answers = futures::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn tokens_that_are_unknown_expired_or_of_another_name_are_refused_with_what_to_do() {
    let own = Own::new().await;
    let (_, csr) = request();
    let refused = |answer: Result<IssuedCertificate, tonic::Status>| answer.unwrap_err().message().to_owned();
    let text = refused(own.enrol("a", "fleet-join-0000", &csr).await);
    assert!(
        text.contains("does not know") && text.contains("fleet clusters join a"),
        "{text}"
    );
    let token = own.token("a").await.token;
    let text = refused(own.enrol("b", &token, &csr).await);
    assert!(
        text.contains("is for cluster a") && text.contains("\"b\""),
        "{text}"
    );
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(own.dir.path().join("fleet.db"));
    let store = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE join_token SET expires = 5")
        .execute(&store)
        .await
        .unwrap();
    let text = refused(own.enrol("a", &token, &csr).await);
    assert!(text.contains("has expired"), "{text}");
    assert!(
        own.join("a").await.certificate.chain.len() == 2,
        "another one is good"
    );
}

#[tokio::test]
async fn a_name_that_another_cluster_has_needs_a_person() {
    let own = Own::new().await;
    let first = own.join("a").await;
    let spoke = own.connect("a", &first).await.unwrap();
    spoke.tell(vec![repository(ID)]).await;
    own.until("a report", async || state(&own, "a").await == "connected")
        .await;
    let token = own.token("a").await;
    assert_eq!(token.known_uid, "uid-of-a");
    let (_, csr) = request();
    let enrol = async || {
        let channel = own.dial(own.running.enrol.unwrap().port(), None).await.unwrap();
        let request = EnrolRequest {
            token: token.token.clone(),
            csr: csr.clone(),
            cluster: "a".to_owned(),
            cluster_uid: "another".to_owned(),
        };
        proto::v1::fleet_enrol_client::FleetEnrolClient::new(channel)
            .enrol(request)
            .await
    };
    let refused = enrol().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused
            .message()
            .contains("fleet clusters accept a --uid another"),
        "{refused}"
    );
    let accept = AcceptClusterRequest {
        cluster: "a".to_owned(),
        cluster_uid: "another".to_owned(),
    };
    own.view().await.accept_cluster(accept).await.unwrap();
    enrol().await.expect("the same token, once a person has decided");
}

#[tokio::test]
async fn who_has_no_certificate_is_bounded() {
    let own = Own::new().await;
    let member = own.join("a").await;
    let port = own.running.link.port();
    let channel = own.dial(port, None).await;
    let refused = match channel {
        Err(_) => true,
        Ok(channel) => crate::harness::open_session(channel, "a", proto::v1::Hello::default())
            .await
            .is_err(),
    };
    assert!(refused, "the link takes nobody without a certificate");
    let large = own.enrol("a", &"x".repeat(64 << 10), &[]).await.unwrap_err();
    assert!(
        matches!(large.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{large}"
    );
    let channel = own.dial(own.running.enrol.unwrap().port(), None).await.unwrap();
    let (_, csr) = request();
    let attempt = || {
        let mut client = proto::v1::fleet_enrol_client::FleetEnrolClient::new(channel.clone());
        let request = EnrolRequest {
            token: "guess".to_owned(),
            csr: csr.clone(),
            cluster: "a".to_owned(),
            cluster_uid: "u".to_owned(),
        };
        async move { client.enrol(request).await.unwrap_err().code() }
    };
    let answers = futures::future::join_all((0..400).map(|_| attempt())).await;
    let throttled = answers
        .iter()
        .filter(|code| **code == Code::ResourceExhausted)
        .count();
    assert!(throttled > 100, "{throttled} of 400 guesses were not looked at");
    // Handshakes that are never finished end by themselves, and hold nobody up.
    let address = format!("127.0.0.1:{port}");
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    assert!(own.connect("a", &member).await.is_ok());
}

/// A cluster with a lock.
async fn holder_of_a_lock(own: &Own) -> (Holder, Spoke) {
    let holder = own.join("a").await;
    let mut spoke = own.connect("a", &holder).await.unwrap();
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    spoke.prove(ID, 1).await;
    spoke.ask("job").await;
    spoke.granted().await;
    (holder, spoke)
}

#[tokio::test]
async fn a_ban_ends_the_session_takes_the_lock_and_lasts_until_it_is_lifted() {
    let own = Own::new().await;
    let (holder, mut spoke) = holder_of_a_lock(&own).await;
    assert!(ban(&own, "a").await, "it was connected");
    let ended = end(&mut spoke).await;
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert!(ended.message().contains("banned by ann (stolen)"), "{ended}");
    let refused = own.connect("a", &holder).await.err().unwrap();
    assert!(refused.contains("banned by ann"), "{refused}");
    assert_eq!(state(&own, "a").await, "banned");
    own.until("the pause after the lock", async || {
        own.locks().await.locks.iter().any(|lock| lock.state == "delayed")
    })
    .await;
    let own = own.restart().await;
    assert!(own.connect("a", &holder).await.is_err(), "a ban is durable");
    let token = proto::v1::CreateJoinTokenRequest {
        cluster: "a".to_owned(),
        valid_ms: 0,
    };
    let refused = own.clusters().await.create_join_token(token).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    unban(&own, "a", false).await;
    assert!(own.connect("a", &holder).await.is_ok());
    let decisions = own.decisions().await;
    for what in ["ban-cluster", "unban-cluster"] {
        assert!(decisions.iter().any(|(found, _)| found == what), "{decisions:?}");
    }
}

#[tokio::test]
async fn a_stolen_certificate_stays_refused_when_its_cluster_joins_again() {
    let own = Own::new().await;
    let stolen = own.join("a").await;
    ban(&own, "a").await;
    unban(&own, "a", true).await;
    let refused = own.connect("a", &stolen).await.err().unwrap();
    assert!(refused.contains("join again"), "{refused}");
    let fresh = own.join("a").await;
    assert!(own.connect("a", &fresh).await.is_ok());
    let own = own.restart().await;
    assert!(own.connect("a", &fresh).await.is_ok() && own.connect("a", &stolen).await.is_err());
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_and_lives_on_with_the_next() {
    let own = Own::with(&["--certificate-life", "10s"]).await;
    let (left, renewed) = (own.join("a").await, own.join("b").await);
    let mut left_alone = own.connect("a", &left).await.unwrap();
    let mut spoke = own.connect("b", &renewed).await.unwrap();
    // Half-way, as a spoke does.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let next = renew(&mut spoke).await;
    keep(&spoke, &next).await;
    let ended = end(&mut left_alone).await;
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("fleet clusters join a"), "{ended}");
    assert!(own.connect("a", &left).await.is_err());
    // It was made after that of a.
    let left = u64::try_from(expires(&renewed.certificate) - hub::now()).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(left + 1)).await;
    assert!(hub::now() < expires(&next.certificate));
    // The session answers after the end of the certificate that it was opened with.
    renew(&mut spoke).await;
    assert!(
        own.connect("b", &next).await.is_ok(),
        "the hub's own certificate was renewed, too"
    );
}

#[tokio::test]
async fn a_session_gets_no_flood_of_certificates() {
    let own = Own::new().await;
    let mut spoke = own.connect("a", &own.join("a").await).await.unwrap();
    renew(&mut spoke).await;
    let (_, csr) = request();
    spoke
        .say(Body::CertificateRequest(CertificateRequest { csr }))
        .await;
    let refused = |told: &Told| match told {
        Told::CertificateRefused(refused) => Some(refused.reason.clone()),
        _ => None,
    };
    assert!(spoke.until("a refusal", refused).await.contains("in a minute"));
}

#[tokio::test]
async fn people_are_connected_as_long_as_their_certificate() {
    let own = Own::new().await;
    let channel = own.operator_for("3s").await;
    let mut view = proto::v1::fleet_view_client::FleetViewClient::new(channel);
    let request = WatchRequest {
        collection: Collection::Clusters.into(),
        ..WatchRequest::default()
    };
    let mut watch = view.watch(request).await.unwrap().into_inner();
    let ended = async { while let Ok(Some(_)) = watch.message().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("the watch ends");
}

#[tokio::test]
async fn another_trust_domain_is_refused() {
    let own = Own::new().await;
    let holder = own.join("a").await;
    let dir = own.dir.path().to_owned();
    let folder = dir.join("authority");
    let other = hub::authority::Authority::open(&folder, "elsewhere", 60_000).unwrap();
    let (key, csr) = request();
    let certificate = other.spoke("a", &csr, hub::now()).unwrap().certificate;
    let refused = own
        .connect("a", &Holder { key, certificate })
        .await
        .err()
        .unwrap();
    assert!(
        refused.contains("\"elsewhere\"") && refused.contains("\"fleet\""),
        "{refused}"
    );
    assert!(own.connect("a", &holder).await.is_ok());
}
