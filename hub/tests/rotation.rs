//! The hub's authority is replaced while clusters and people are connected; a given one is followed in its file.

use std::time::Duration;

use crate::harness::own::{Own, keep, renew};
use crate::harness::{Fleet, Spoke};
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_clusters_client::FleetClustersClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuthoritiesRequest, Collection, CreateLoginRequest, InviteRequest, LoginRequest, RotateAuthorityRequest,
    RotateAuthorityResponse, RotationStep, TrustStored, WatchRequest, WhoAmIRequest,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

async fn rotate(
    own: &Own,
    step: RotationStep,
    force: bool,
) -> Result<RotateAuthorityResponse, tonic::Status> {
    let request = RotateAuthorityRequest {
        step: step.into(),
        force,
    };
    Ok(own.clusters().await.rotate_authority(request).await?.into_inner())
}

async fn bundle(spoke: &mut Spoke, authorities: usize) -> proto::v1::TrustBundle {
    spoke
        .until("a bundle", |told| match told {
            Told::TrustBundle(bundle) if bundle.authorities.len() == authorities => Some(bundle.clone()),
            _ => None,
        })
        .await
}

/// Whether the next step would lock no cluster out.
async fn ready(own: &Own) -> bool {
    let now = rotate(own, RotationStep::Unspecified, false).await;
    now.unwrap().behind.is_empty()
}

/// Until the connection of a session is closed, whatever comes before.
async fn closed(spoke: &mut Spoke) {
    let read = async { while let Ok(Some(_)) = spoke.next().await {} };
    let closed = tokio::time::timeout(Duration::from_secs(20), read).await;
    closed.expect("the connection is closed");
}

#[tokio::test]
async fn an_authority_is_replaced_under_open_sessions() {
    let own = Own::new().await;
    let old = own.join("a").await;
    let mut spoke = own.connect("a", &old).await.unwrap();
    bundle(&mut spoke, 1).await;
    rotate(&own, RotationStep::Begin, false).await.unwrap();
    let announced = bundle(&mut spoke, 2).await;
    let refused = rotate(&own, RotationStep::Activate, false).await.unwrap_err();
    assert!(
        refused.message().contains("locked out") && refused.message().contains(": a."),
        "{refused}"
    );
    let keys = announced
        .authorities
        .iter()
        .map(|der| proto::certificate::read(der).unwrap().key.to_vec());
    spoke
        .say(Body::TrustStored(TrustStored { keys: keys.collect() }))
        .await;
    own.until("a cluster that is ready", async || ready(&own).await)
        .await;
    rotate(&own, RotationStep::Activate, false).await.unwrap();
    let activated = spoke
        .until("the next authority", |told| match told {
            Told::TrustBundle(bundle) if bundle.active != announced.active => Some(bundle.clone()),
            _ => None,
        })
        .await;
    assert!(own.connect("a", &old).await.is_ok(), "both are trusted");
    let mut spoke = own.connect("a", &old).await.unwrap();
    let fresh = renew(&mut spoke).await;
    let behind = rotate(&own, RotationStep::Retire, false).await.unwrap_err();
    assert!(
        behind.message().contains("locked out"),
        "what was issued may not have arrived: {behind}"
    );
    keep(&spoke, &fresh).await;
    own.until("a cluster that has its certificate", async || ready(&own).await)
        .await;
    let signer = proto::certificate::read(&fresh.certificate.chain[1]).unwrap().key;
    assert_eq!(activated.active, signer);
    let steady = rotate(&own, RotationStep::Retire, false).await.unwrap();
    assert_eq!((steady.state.as_str(), steady.authorities.len()), ("steady", 1));
    closed(&mut spoke).await;
    assert!(own.connect("a", &old).await.is_err());
    assert!(own.connect("a", &fresh).await.is_ok());
    let own = own.restart().await;
    assert!(own.connect("a", &fresh).await.is_ok() && own.connect("a", &old).await.is_err());
    let steps = own
        .decisions()
        .await
        .into_iter()
        .filter(|(what, _)| what == "rotate-authority");
    assert_eq!(steps.count(), 3);
}

#[tokio::test]
async fn what_a_retired_authority_has_certified_is_closed() {
    let own = Own::new().await;
    let mut view = FleetViewClient::new(own.operator().await);
    let request = || WatchRequest {
        collection: Collection::Clusters.into(),
        ..WatchRequest::default()
    };
    let mut watch = view.watch(request()).await.unwrap().into_inner();
    let mut spoke = own.connect("a", &own.join("a").await).await.unwrap();
    for step in [RotationStep::Begin, RotationStep::Activate] {
        rotate(&own, step, true).await.unwrap();
    }
    let mut later = FleetViewClient::new(own.operator().await);
    let mut stays = later.watch(request()).await.unwrap().into_inner();
    let clusters = own.operator().await;
    rotate(&own, RotationStep::Retire, true).await.unwrap();
    closed(&mut spoke).await;
    let ended = async { while let Ok(Some(_)) = watch.message().await {} };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .expect("a watch by a certificate of the old authority ends");
    // A heartbeat: the next authority's certificates are good as before.
    while !matches!(
        stays.message().await.unwrap().unwrap().body,
        Some(proto::v1::watch_event::Body::Heartbeat(_))
    ) {}
    let mut clusters = FleetClustersClient::new(clusters);
    clusters
        .rotate_authority(RotateAuthorityRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_person_who_retires_an_authority_by_its_certificate_gets_the_answer() {
    let own = Own::new().await;
    let mut clusters = own.clusters().await;
    for step in [RotationStep::Begin, RotationStep::Activate, RotationStep::Retire] {
        let request = RotateAuthorityRequest {
            step: step.into(),
            force: true,
        };
        clusters.rotate_authority(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_a_certificate_has_made_ends_with_its_authority() {
    let own = Own::new().await;
    let mut admin = FleetAdminClient::new(own.operator().await);
    let mut own_token = async || {
        let made = admin.create_login(CreateLoginRequest {}).await.unwrap();
        made.into_inner().token
    };
    let (used, unused) = (own_token().await, own_token().await);
    let invite = InviteRequest {
        name: "ann".to_owned(),
        ..InviteRequest::default()
    };
    let invited = admin.invite(invite).await.unwrap().into_inner().token;
    let log_in = async |token: String| {
        let channel = own.dial(own.running.view.port(), None).await.unwrap();
        let login = LoginRequest {
            token,
            ..LoginRequest::default()
        };
        let opened = FleetAdminClient::new(channel).login(login).await?;
        Ok::<_, tonic::Status>(opened.into_inner().session)
    };
    let (made, invited) = (log_in(used).await.unwrap(), log_in(invited).await.unwrap());
    let who = async |session: &str| {
        let channel = own.dial(own.running.view.port(), None).await.unwrap();
        let mut request = Request::new(WhoAmIRequest::default());
        let bearer = format!("Bearer {session}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        FleetAdminClient::new(channel).who_am_i(request).await
    };
    for step in [RotationStep::Begin, RotationStep::Activate] {
        rotate(&own, step, true).await.unwrap();
    }
    assert!(who(&made).await.is_ok());
    rotate(&own, RotationStep::Retire, true).await.unwrap();
    assert_eq!(who(&made).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(log_in(unused).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(who(&invited).await.is_ok());
}

#[tokio::test]
async fn an_activation_waits_for_people_who_are_logged_in() {
    let own = Own::new().await;
    let mut admin = FleetAdminClient::new(own.operator().await);
    let key = |der: &[u8]| proto::certificate::read(der).unwrap().key.to_vec();
    let now = admin
        .authorities(AuthoritiesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut sessions = Vec::new();
    for name in ["ann", "bob"] {
        let invite = InviteRequest {
            name: name.to_owned(),
            ..InviteRequest::default()
        };
        let token = admin.invite(invite).await.unwrap().into_inner().token;
        let channel = own.dial(own.running.view.port(), None).await.unwrap();
        let login = LoginRequest {
            token,
            trusts: vec![key(&now.authorities[0])],
            ..LoginRequest::default()
        };
        let opened = FleetAdminClient::new(channel).login(login).await.unwrap();
        sessions.push(opened.into_inner().session);
    }
    let begun = rotate(&own, RotationStep::Begin, false).await.unwrap();
    let names: Vec<&str> = begun.people.iter().map(|person| person.name.as_str()).collect();
    assert_eq!(names, ["ann", "bob"]);
    let ask = async |session: &str, kept: Vec<Vec<u8>>| {
        let channel = own.dial(own.running.view.port(), None).await.unwrap();
        let mut request = Request::new(AuthoritiesRequest { kept });
        let bearer = format!("Bearer {session}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        FleetAdminClient::new(channel).authorities(request).await.unwrap()
    };
    let answer = ask(&sessions[0], Vec::new()).await;
    let announced = answer.metadata().get("fleet-authorities").unwrap();
    let announced = proto::certificate::announced(announced.to_str().unwrap()).unwrap();
    let next: Vec<bool> = announced.iter().map(|one| one.next).collect();
    assert_eq!(next, [false, true]);
    let bundle = answer.into_inner().authorities;
    assert_eq!(bundle.len(), 2);
    let keys: Vec<Vec<u8>> = bundle.iter().map(|der| key(der)).collect();
    let refused = rotate(&own, RotationStep::Activate, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains(": ann, bob."), "{refused}");
    ask(&sessions[0], keys.clone()).await;
    let own = own.restart().await;
    let refused = rotate(&own, RotationStep::Activate, false).await.unwrap_err();
    assert!(refused.message().contains(": bob."), "{refused}");
    assert!(refused.message().contains("ends in 720 min"), "{refused}");
    rotate(&own, RotationStep::Activate, true).await.unwrap();
}

fn authority() -> String {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.self_signed(&key).unwrap().pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn given_authorities_are_announced_as_their_file_has_them_now() {
    let fleet = Fleet::new().await;
    let mut spoke = fleet.spoke("a").await;
    bundle(&mut spoke, 2).await;
    let file = fleet.dir.path().join("ca.crt");
    let both = std::fs::read_to_string(&file).unwrap() + &authority();
    std::fs::write(&file, both).unwrap();
    // News of the hub's own authority has it look at once.
    let mut clusters = FleetClustersClient::new(fleet.view_as("admin/root").await);
    let begin = RotateAuthorityRequest {
        step: RotationStep::Begin.into(),
        force: false,
    };
    clusters.rotate_authority(begin).await.unwrap();
    bundle(&mut spoke, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_certificate_that_nobody_could_verify_is_refused() {
    let fleet = Fleet::new().await;
    let dir = fleet.stop().await;
    let start = async || {
        let stop = CancellationToken::new();
        let config = crate::harness::config(dir.path(), &[]);
        let started = hub::run::start(&config, stop.clone()).await;
        stop.cancel();
        started.map(drop).map_err(|error| format!("{error:#}"))
    };
    let good = std::fs::read(dir.path().join("ca.crt")).unwrap();
    std::fs::write(dir.path().join("ca.crt"), authority()).unwrap();
    let refused = start().await.unwrap_err();
    assert!(
        refused.contains("(--tls-cert)") && refused.contains("invalid peer certificate"),
        "{refused}"
    );
    std::fs::write(dir.path().join("ca.crt"), good).unwrap();
    start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_authority_that_only_signs_the_hubs_certificate_no_client_is_taken() {
    let fleet = Fleet::new().await;
    fleet.spoke("a").await;
    let file = fleet.dir.path().join("web.crt").to_str().unwrap().to_owned();
    let fleet = fleet
        .restart_with(&["--tls-cert-ca", &file], async |dir| {
            std::fs::rename(dir.join("ca.crt"), &file).unwrap();
            std::fs::write(dir.join("ca.crt"), authority()).unwrap();
        })
        .await;
    let ask = async |port: u16, identity: Option<(String, String)>| {
        let channel = fleet.connect(port, identity).await;
        let channel = channel.map_err(|error| format!("{error:?}"))?;
        let answer = FleetAdminClient::new(channel)
            .who_am_i(WhoAmIRequest::default())
            .await;
        answer.map(drop).map_err(|status| format!("{status:?}"))
    };
    let (link, view) = (fleet.running.link.port(), fleet.running.view.port());
    let answered = ask(view, None).await.unwrap_err();
    assert!(
        answered.contains("Unauthenticated"),
        "clients take the hub: {answered}"
    );
    for (port, uri) in [
        (link, "spiffe://fleet/spoke/a"),
        (view, "spiffe://fleet/admin/root"),
    ] {
        let refused = ask(port, Some(fleet.certificate(uri))).await.unwrap_err();
        assert!(refused.contains("transport"), "{uri}: {refused}");
    }
}
