//! People of a hub: logins, rights that change, what is outside of a scope, and the audit of all that.

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

/// Clusters a and b share a repository; b has another one besides.
async fn two(fleet: &Fleet) -> (Spoke, Spoke) {
    let a = member(fleet).await;
    a.tell(vec![
        repository(ID),
        policy(keep_last(3)),
        backup("ns", "one", ID),
        backup("shop", "two", ID),
    ])
    .await;
    let mut b = fleet.spoke("b").await;
    let own = ObjectState {
        uid: "own".to_owned(),
        name: "own".to_owned(),
        ..repository(OTHER)
    };
    b.tell(vec![repository(ID), own, backup("ns", "three", ID)]).await;
    b.prove(ID, 1).await;
    fleet.until_binding("b", ID, "bound").await;
    fleet
        .until("all backups", async |fleet| {
            fleet
                .running
                .hub
                .read(|inventory| inventory.index().backup_count())
                == 3
        })
        .await;
    (a, b)
}

async fn keys(view: &mut FleetViewClient<Authorized>, collection: Collection) -> Vec<String> {
    let request = ListRequest {
        collection: collection.into(),
        ..ListRequest::default()
    };
    let answer = view.list(request).await.unwrap().into_inner();
    let keys: Vec<String> = answer.rows.into_iter().map(|row| row.key).collect();
    assert_eq!(answer.total, keys.len() as u64);
    keys
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
async fn what_is_outside_of_a_scope_is_neither_listed_nor_counted() {
    let fleet = Fleet::new().await;
    let (_a, _b) = two(&fleet).await;
    bind(&fleet, "ann", "operator", &["a"], &["ns"]).await;
    let mut ann = login(&fleet, "ann", &[]).await;
    assert_eq!(keys(&mut ann.view, Collection::Backups).await, ["a/ns/one"]);
    assert_eq!(keys(&mut ann.view, Collection::Clusters).await, ["a"]);
    assert_eq!(keys(&mut ann.view, Collection::Repositories).await, [ID]);
    let status = ann.view.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.clusters, status.backups, status.repositories), (1, 1, 1));
    let all: u64 = status.backups_by_state.values().sum();
    assert_eq!(all, 1);
    let text = format!("{:?}", status.needs_you);
    assert!(!text.contains("b/ns") && !text.contains("a/shop"), "{text}");
    let filter = Filter {
        clusters: vec!["b".to_owned()],
        ..Filter::default()
    };
    let request = ListRequest {
        collection: Collection::Backups.into(),
        filter: Some(filter),
        ..ListRequest::default()
    };
    let unknown = ann.view.list(request).await.unwrap_err();
    assert!(
        unknown.message().ends_with("clusters are a"),
        "{}",
        unknown.message()
    );
    let named = LocksRequest {
        repository: OTHER.to_owned(),
    };
    assert!(ann.view.locks(named).await.unwrap().into_inner().locks.is_empty());
    let audit = AuditRequest {
        repository: OTHER.to_owned(),
        ..AuditRequest::default()
    };
    assert_eq!(ann.view.audit(audit).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_the_rights_of_its_person_and_ends_with_the_session() {
    let fleet = Fleet::new().await;
    let (_a, _b) = two(&fleet).await;
    let narrow = bind(&fleet, "ann", "viewer", &["a"], &["ns"]).await;
    let mut ann = login(&fleet, "ann", &[]).await;
    let request = WatchRequest {
        collection: Collection::Backups.into(),
        filter: None,
        ..WatchRequest::default()
    };
    let mut events = ann.view.watch(request).await.unwrap().into_inner();
    let mut shown = Vec::new();
    let mut next = async || {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), events.message());
            match event.await.expect("an event")?.expect("the watch goes on").body {
                Some(Event::Upsert(row)) => return Ok::<_, Status>(format!("+{}", row.key)),
                Some(Event::Removed(key)) => return Ok(format!("-{key}")),
                _ => {}
            }
        }
    };
    shown.push(next().await.unwrap());
    assert_eq!(shown, ["+a/ns/one"]);
    bind(&fleet, "ann", "viewer", &["b"], &[]).await;
    assert_eq!(next().await.unwrap(), "+b/ns/three");
    let mut admin = admin(&fleet).await;
    admin.unbind(UnbindRequest { id: narrow }).await.unwrap();
    assert_eq!(next().await.unwrap(), "-a/ns/one");
    let name = "ann".to_owned();
    admin.revoke(RevokeRequest { name }).await.unwrap();
    assert_eq!(next().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_and_a_plan_are_decided_only_by_who_may_do_so_for_all_of_it() {
    let fleet = Fleet::new().await;
    let (mut a, _b) = two(&fleet).await;
    bind(&fleet, "ann", "operator", &["a"], &[]).await;
    bind(&fleet, "bob", "operator", &["b"], &[]).await;
    bind(&fleet, "eve", "viewer", &[], &[]).await;
    let mut ann = login(&fleet, "ann", &[]).await;
    let mut bob = login(&fleet, "bob", &[]).await;
    let mut eve = login(&fleet, "eve", &[]).await;
    a.ask("job").await;
    let token = a.granted().await.token;
    // Bob sees that the repository is held, and not by whom.
    let locks = bob
        .view
        .locks(LocksRequest::default())
        .await
        .unwrap()
        .into_inner();
    let [lock] = locks.locks.as_slice() else {
        panic!("{locks:?}")
    };
    assert_eq!((lock.state.as_str(), lock.cluster.as_str()), ("held", ""));
    assert!(!format!("{lock:?}").contains("ns/p"), "{lock:?}");
    let release = ReleaseLockRequest {
        repository: ID.to_owned(),
        token,
        checked: false,
    };
    let refused = bob.view.release_lock(release.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    ends(&mut a, token, "ApprovalRequired").await;
    // The plan removes a snapshot without tags: only the whole fleet covers it.
    let plans = async |person: &mut Person| {
        let plans = person.view.plans(PlansRequest::default()).await;
        plans.unwrap().into_inner().plans
    };
    fleet
        .until("the plan", async |fleet| {
            let mut view = fleet.operator().await;
            let plans = view.plans(PlansRequest::default()).await.unwrap();
            !plans.into_inner().plans.is_empty()
        })
        .await;
    assert!(plans(&mut ann).await.is_empty());
    let found = plans(&mut eve).await;
    let decide = DecidePlanRequest {
        plan: found[0].id.clone(),
        hash: hash(),
        approve: true,
    };
    let refused = eve.view.decide_plan(decide.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a viewer decides nothing");
    let unknown = ann.view.decide_plan(decide.clone()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "what is not seen is not there");
    // Seeing everything is not enough to approve everything.
    bind(&fleet, "ann", "viewer", &[], &[]).await;
    let refused = ann.view.decide_plan(decide.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    bind(&fleet, "ann", "approve", &[], &[]).await;
    ann.view.decide_plan(decide).await.unwrap();
}

/// By the tags of the snapshot that goes: of cluster a, namespace ns.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_seen_and_approved_in_the_scope_of_what_it_removes() {
    let fleet = Fleet::new().await;
    let (mut a, _b) = two(&fleet).await;
    bind(&fleet, "ann", "operator", &["a"], &["ns"]).await;
    bind(&fleet, "bob", "operator", &["b"], &[]).await;
    bind(&fleet, "cat", "operator", &["a"], &["shop"]).await;
    // What may be approved is narrower than what is seen.
    bind(&fleet, "dan", "viewer", &["a"], &[]).await;
    bind(&fleet, "dan", "approve", &["b"], &[]).await;
    let mut ann = login(&fleet, "ann", &[]).await;
    a.ask("job").await;
    let token = a.granted().await.token;
    let tags = ["fleet.cluster=a", "fleet.backup=ns/one"];
    ends_with(&mut a, token, "ApprovalRequired", &tags).await;
    let all = PlansRequest::default();
    let found = ann.view.plans(all.clone()).await.unwrap().into_inner().plans;
    let [plan] = found.as_slice() else {
        panic!("{found:?}")
    };
    let one = PlansRequest {
        plan: plan.id.clone(),
        ..PlansRequest::default()
    };
    let shown = ann.view.plans(one).await.unwrap().into_inner();
    let document = &shown.plans[0].document;
    assert!(
        document.contains("a/ns/p") && !document.contains("b/ns/secret"),
        "{document}"
    );
    assert!(
        document.contains(&crate::harness::plan::snapshot()),
        "what goes is whole"
    );
    let decide = DecidePlanRequest {
        plan: plan.id.clone(),
        hash: hash(),
        approve: true,
    };
    for (name, code) in [
        ("bob", Code::NotFound),
        ("cat", Code::NotFound),
        ("dan", Code::PermissionDenied),
    ] {
        let mut person = login(&fleet, name, &[]).await;
        let refused = person.view.decide_plan(decide.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {}", refused.message());
    }
    ann.view.decide_plan(decide).await.unwrap();
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
