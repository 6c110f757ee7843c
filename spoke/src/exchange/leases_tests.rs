use super::*;

fn renew(token: u64) -> LeaseRenew {
    LeaseRenew {
        operation: "job".to_owned(),
        token,
        ..LeaseRenew::default()
    }
}

fn heard(leases: &Leases) -> Arc<Mutex<Vec<Event>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    leases.listen("job", "r", move |event| ears.lock().unwrap().push(event));
    heard
}

#[test]
fn messages_while_the_hub_is_away_are_dropped_and_a_new_session_is_announced() {
    let (leases, _) = Leases::new(true);
    let heard = heard(&leases);
    leases.renew(renew(1));
    assert!(leases.take().is_empty());
    leases.connected(true);
    assert_eq!(*heard.lock().unwrap(), [Event::Connected]);
    leases.renew(renew(1));
    assert_eq!(leases.take().len(), 1);
    leases.notify("other", "r", Event::Released { token: 1 });
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[test]
fn an_approval_waits_for_its_policys_actor_within_the_session() {
    let (leases, _) = Leases::new(true);
    let approved = || {
        hub_message::Body::PlanApproved(proto::v1::PlanApproved {
            policy: "u".to_owned(),
            hash: "abcd".to_owned(),
            ..proto::v1::PlanApproved::default()
        })
    };
    let listen = || {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        leases.listen_policy("u", move |event| ears.lock().unwrap().push(event));
        let heard = heard.lock().unwrap().len();
        leases.forget_policy("u");
        heard
    };
    leases.connected(true);
    leases.deliver(approved());
    assert_eq!((listen(), listen()), (1, 0), "once");
    leases.deliver(approved());
    leases.connected(true);
    assert_eq!(listen(), 0, "the hub sends it again in the next session");
}

#[test]
fn a_message_about_another_repository_is_dropped() {
    let (leases, _) = Leases::new(true);
    let heard = heard(&leases);
    let renewed = |restic_id: &str| {
        hub_message::Body::LeaseRenewed(proto::v1::LeaseRenewed {
            operation: "job".to_owned(),
            token: 9,
            restic_id: restic_id.to_owned(),
            ..Default::default()
        })
    };
    leases.deliver(renewed("another"));
    leases.deliver(renewed(""));
    assert!(heard.lock().unwrap().is_empty());
    leases.deliver(renewed("r"));
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[test]
fn a_plan_goes_in_parts_before_its_release_and_renewals_overtake_it() {
    let (leases, _) = Leases::new(true);
    leases.connected(true);
    let release = LeaseRelease {
        operation: "long".to_owned(),
        token: 3,
        ..LeaseRelease::default()
    };
    let plan = vec![7; PLAN_PART * 2 + 5];
    leases.release(release.clone(), &plan);
    // Repeated before it was sent: once is enough.
    leases.release(release, &plan);
    let part = |body: &Body| match body {
        Body::PlanPart(part) => Some((part.offset, part.data.len())),
        _ => None,
    };
    assert_eq!(
        leases.take().iter().filter_map(part).collect::<Vec<_>>(),
        [(0, PLAN_PART)]
    );
    leases.renew(renew(1));
    let second = leases.take();
    assert!(
        matches!(second[0], Body::LeaseRenew(_)) && part(&second[1]) == Some((PLAN_PART as u64, PLAN_PART))
    );
    assert_eq!(part(&leases.take()[0]), Some((2 * PLAN_PART as u64, 5)));
    assert!(matches!(leases.take()[..], [Body::LeaseRelease(_)]));
    assert!(leases.take().is_empty());
}

#[test]
fn a_new_term_begins_with_nothing_remembered() {
    let (leases, _) = Leases::new(true);
    let heard = heard(&leases);
    leases.connected(true);
    leases.drain("r", 60_000);
    leases.renew(renew(1));
    leases.reset();
    assert!(leases.take().is_empty() && leases.drain_left("r").is_none());
    leases.notify("job", "r", Event::Released { token: 1 });
    assert_eq!(*heard.lock().unwrap(), [Event::Connected]);
    assert!(leases.is_connected(), "the session is the link's");
}

#[test]
fn a_drain_ends_when_it_is_said_or_by_itself() {
    let (leases, _) = Leases::new(true);
    let drain = |duration_ms| {
        leases.deliver(hub_message::Body::Drain(proto::v1::Drain {
            restic_id: "r".to_owned(),
            duration_ms,
        }))
    };
    assert_eq!(drain(60_000).as_deref(), Some("r"));
    assert!(leases.drain_left("r").is_some() && leases.drain_left("s").is_none());
    drain(0);
    assert!(leases.drain_left("r").is_none());
    drain(1);
    std::thread::sleep(Duration::from_millis(5));
    assert!(leases.drain_left("r").is_none());
}
