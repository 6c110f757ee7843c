//! People of a hub: logins, rights that change, what is outside of a scope, and the audit of all that.

mod scopes;

use std::time::Duration;

use crate::harness::plan::{ends, ends_with, hash};
use crate::harness::{Fleet, ID, OTHER, Spoke, keep_last, member, object, policy, repository};
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::object_state::Body as Object;
use proto::v1::watch_event::Body as Event;
use proto::v1::{
    AcceptClusterRequest, AuditRequest, BackupState, BindRequest, Collection, CreateLoginRequest,
    DecidePlanRequest, Filter, ForgetClusterRequest, InviteRequest, ListRequest, LocksRequest, LoginRequest,
    ObjectState, PlansRequest, ReleaseLockRequest, RevokeRequest, Scope, StatusRequest, UnbindRequest,
    VerifyAuditRequest, WatchRequest, WhoAmIRequest,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Bearer>;

struct Person {
    view: FleetViewClient<Authorized>,
    admin: FleetAdminClient<Authorized>,
}

async fn nobody(fleet: &Fleet) -> FleetAdminClient<Channel> {
    let port = fleet.running.view.port();
    FleetAdminClient::new(fleet.connect(port, None).await.unwrap())
}

async fn admin(fleet: &Fleet) -> FleetAdminClient<Channel> {
    FleetAdminClient::new(fleet.view_as("admin/root").await)
}

async fn with_session(fleet: &Fleet, session: &str) -> Person {
    let bearer = Bearer(format!("Bearer {session}").parse().unwrap());
    let port = fleet.running.view.port();
    let channel = fleet.connect(port, None).await.unwrap();
    Person {
        view: FleetViewClient::with_interceptor(channel.clone(), bearer.clone()),
        admin: FleetAdminClient::with_interceptor(channel, bearer),
    }
}

async fn session(fleet: &Fleet, name: &str, groups: &[&str]) -> String {
    let invite = InviteRequest {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let token = admin(fleet)
        .await
        .invite(invite)
        .await
        .unwrap()
        .into_inner()
        .token;
    let opened = nobody(fleet)
        .await
        .login(LoginRequest {
            token,
            ..LoginRequest::default()
        })
        .await
        .unwrap();
    opened.into_inner().session
}

async fn login(fleet: &Fleet, name: &str, groups: &[&str]) -> Person {
    with_session(fleet, &session(fleet, name, groups).await).await
}

async fn bind(fleet: &Fleet, user: &str, rights: &str, clusters: &[&str], namespaces: &[&str]) -> u64 {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let bind = BindRequest {
        user: user.to_owned(),
        rights: rights.to_owned(),
        scope: Some(Scope {
            clusters: list(clusters),
            namespaces: list(namespaces),
            ..Scope::default()
        }),
        ..BindRequest::default()
    };
    admin(fleet).await.bind(bind).await.unwrap().into_inner().id
}

fn backup(namespace: &str, name: &str, restic_id: &str) -> ObjectState {
    let body = BackupState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: restic_id.to_owned(),
        suspended: true,
        ..BackupState::default()
    };
    ObjectState {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..object(&format!("{namespace}-{name}"), Object::Backup(body))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_token_is_good_once_and_a_session_until_it_is_revoked() {
    let fleet = Fleet::new().await;
    let invite = InviteRequest {
        name: "ann".to_owned(),
        groups: vec!["ops".to_owned()],
    };
    let token = admin(&fleet)
        .await
        .invite(invite)
        .await
        .unwrap()
        .into_inner()
        .token;
    let request = || LoginRequest {
        token: token.clone(),
        ..LoginRequest::default()
    };
    let opened = nobody(&fleet).await.login(request()).await.unwrap().into_inner();
    let again = nobody(&fleet).await.login(request()).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    let mut ann = with_session(&fleet, &opened.session).await;
    let me = ann.admin.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (me.name.as_str(), me.method.as_str(), me.grants.len()),
        ("ann", "token", 0)
    );
    assert_eq!(me.groups, ["ops"]);
    let refused = ann.view.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    bind(&fleet, "ann", "viewer", &[], &[]).await;
    ann.view.status(StatusRequest {}).await.unwrap();
    // Neither token is kept as it is.
    let raw = std::fs::read(fleet.dir.path().join("fleet.db-wal")).unwrap();
    for secret in [&token, &opened.session] {
        assert!(!raw.windows(secret.len()).any(|part| part == secret.as_bytes()));
    }
    // Rights and session outlive the hub's process.
    let fleet = fleet.restart().await;
    let mut ann = with_session(&fleet, &opened.session).await;
    ann.view.status(StatusRequest {}).await.unwrap();
    let revoke = RevokeRequest {
        name: "ann".to_owned(),
    };
    let ended = admin(&fleet).await.revoke(revoke).await.unwrap().into_inner();
    assert_eq!(ended.sessions, 1);
    let refused = ann.view.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let fleet = fleet.restart().await;
    let mut ann = with_session(&fleet, &opened.session).await;
    assert!(ann.view.status(StatusRequest {}).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_forgotten_or_accepted_is_in_the_audit() {
    let fleet = Fleet::new().await;
    drop(fleet.spoke("gone").await);
    let mut view = fleet.operator().await;
    fleet
        .until("the end of the session", async |fleet| {
            fleet.running.hub.read(|inventory| {
                inventory
                    .member("gone")
                    .is_some_and(|member| member.live.is_none())
            })
        })
        .await;
    let accept = AcceptClusterRequest {
        cluster: "gone".to_owned(),
        cluster_uid: "uid".to_owned(),
    };
    view.accept_cluster(accept).await.unwrap();
    let forget = ForgetClusterRequest {
        cluster: "gone".to_owned(),
        confirm: true,
    };
    view.forget_cluster(forget).await.unwrap();
    // Nobody had bound it to a repository: it is one entry for each decision.
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let whats: Vec<&str> = audit
        .decisions
        .iter()
        .map(|decision| decision.what.as_str())
        .collect();
    assert_eq!(whats, ["forget-cluster", "accept-cluster"]);
    assert!(
        audit
            .decisions
            .iter()
            .all(|decision| decision.cluster == "gone" && decision.who == "ann")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_has_logins_rights_and_refusals_and_shows_each_to_whom_it_concerns() {
    let fleet = Fleet::new().await;
    let mut root = admin(&fleet).await;
    bind(&fleet, "ann", "viewer", &["a"], &[]).await;
    let mut ann = login(&fleet, "ann", &[]).await;
    let refused = ann
        .admin
        .verify_audit(VerifyAuditRequest { known: 0 })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut view = fleet.operator().await;
    let whats = async |view: &mut FleetViewClient<Channel>, who: &str| {
        let request = AuditRequest {
            who: who.to_owned(),
            ..AuditRequest::default()
        };
        let decisions = view.audit(request).await.unwrap().into_inner().decisions;
        decisions.into_iter().map(|d| d.what).collect::<Vec<_>>()
    };
    fleet
        .until("the refusal", async |fleet| {
            whats(&mut fleet.operator().await, "ann").await.len() == 2
        })
        .await;
    assert_eq!(whats(&mut view, "ann").await, ["refused", "login"]);
    assert_eq!(whats(&mut view, "root").await, ["invite", "bind"]);
    // Ann sees what she did, and not who gave her the rights.
    let own = ann
        .view
        .audit(AuditRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(
        own.decisions.iter().all(|decision| decision.who == "ann"),
        "{own:?}"
    );
    assert_eq!(own.decisions.len(), 2);
    let verified = root
        .verify_audit(VerifyAuditRequest { known: 1 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((verified.entries, verified.fault.as_str()), (4, ""));
    // What follows is asked for by the last that was answered.
    let first = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let after = AuditRequest {
        after: Some(first.last),
        ..AuditRequest::default()
    };
    assert!(
        view.audit(after.clone())
            .await
            .unwrap()
            .into_inner()
            .decisions
            .is_empty()
    );
    bind(&fleet, "ann", "viewer", &["b"], &[]).await;
    let new = view.audit(after).await.unwrap().into_inner();
    assert_eq!(new.decisions.len(), 1);
    assert_eq!(new.decisions[0].after, "viewer in clusters b");
    // Pages of two: nothing is left out, and nothing is there twice.
    let (mut before, mut ids) = (String::new(), Vec::new());
    loop {
        let page = AuditRequest {
            limit: 2,
            before,
            ..AuditRequest::default()
        };
        let page = view.audit(page).await.unwrap().into_inner();
        ids.extend(page.decisions.iter().map(|decision| decision.id));
        if page.next_before.is_empty() {
            break;
        }
        before = page.next_before;
    }
    assert_eq!(ids, [5, 4, 3, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_checked_before_they_are_bound() {
    let fleet = Fleet::new().await;
    let mut root = admin(&fleet).await;
    let scope = Some(Scope {
        clusters: vec!["a".to_owned()],
        ..Scope::default()
    });
    for (user, group, rights, scope) in [
        ("", "", "viewer", None),
        ("ann", "ops", "viewer", None),
        ("ann", "", "root", None),
        ("a b", "", "viewer", None),
        // Who may give rights may give itself every one.
        ("ann", "", "admin", scope.clone()),
        ("ann", "", "see,administer", scope),
    ] {
        let request = BindRequest {
            user: user.to_owned(),
            group: group.to_owned(),
            rights: rights.to_owned(),
            scope,
        };
        let refused = root.bind(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{user} {group} {rights}");
    }
    assert_eq!(
        root.unbind(UnbindRequest { id: 7 }).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_ten_login_tokens_for_itself_at_most() {
    let fleet = Fleet::new().await;
    let mut ann = login(&fleet, "ann", &[]).await.admin;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        let made = ann.create_login(CreateLoginRequest {}).await.unwrap();
        tokens.push(made.into_inner().token);
    }
    let refused = ann.create_login(CreateLoginRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // Another one has its own, and what is used makes room.
    let mut bob = login(&fleet, "bob", &[]).await.admin;
    bob.create_login(CreateLoginRequest {}).await.unwrap();
    let token = tokens.remove(0);
    let login = LoginRequest {
        token,
        ..LoginRequest::default()
    };
    nobody(&fleet).await.login(login).await.unwrap();
    ann.create_login(CreateLoginRequest {}).await.unwrap();
}
