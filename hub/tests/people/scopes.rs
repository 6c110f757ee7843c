//! What a person may see and decide.

use super::*;

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
