use proto::v1::{Delta, Heartbeat, Inventory};

use super::*;

fn update(uid: &str) -> ObjectUpdate {
    ObjectUpdate {
        uid: uid.to_owned(),
        state: format!("state of {uid}").into_bytes(),
    }
}

fn part(uids: &[&str], first: bool, last: bool) -> Option<Body> {
    Some(Body::Inventory(Inventory {
        updates: uids.iter().map(|u| update(u)).collect(),
        first,
        last,
    }))
}

fn delta(uids: &[&str], gone: &[&str], more: bool) -> Option<Body> {
    Some(Body::Delta(Delta {
        updates: uids.iter().map(|u| update(u)).collect(),
        gone: gone.iter().map(|u| Tombstone { uid: (*u).to_owned() }).collect(),
        more,
    }))
}

fn nothing() -> (u64, Digest) {
    (0, Digest::default())
}

fn session() -> Session {
    Session::new(false, 1_000)
}

#[test]
fn parts_are_applied_together_with_the_last() {
    let mut session = session();
    let effect = session.take(part(&["a"], true, false), nothing(), 0).unwrap();
    assert_eq!(effect, Effect::default());
    let effect = session
        .take(part(&["b", "long"], false, true), nothing(), 0)
        .unwrap();
    let update = effect.update.unwrap();
    assert!(update.whole && update.states.len() == 3);
    let own = |(uid, state): &(String, Bytes)| *state == format!("state of {uid}");
    assert!(update.states.iter().all(own), "{:?}", update.states);
    assert_eq!(
        session.take(delta(&["c"], &[], true), nothing(), 0).unwrap(),
        Effect::default()
    );
    let effect = session.take(delta(&[], &["a"], false), nothing(), 0).unwrap();
    let update = effect.update.unwrap();
    assert_eq!(
        (update.whole, update.states.len(), update.gone.len()),
        (false, 1, 1)
    );
}

#[test]
fn a_new_beginning_forgets_the_half_that_came_before() {
    let mut session = session();
    session.take(part(&["a"], true, false), nothing(), 0).unwrap();
    let effect = session.take(part(&["b"], true, true), nothing(), 0).unwrap();
    assert_eq!(effect.update.unwrap().states[0].0, "b");
}

#[test]
fn what_arrives_out_of_order_is_not_applied_and_asks_for_everything() {
    let mut session = session();
    let effect = session.take(delta(&["a"], &[], false), nothing(), 0).unwrap();
    assert!(effect.doubt && effect.resync.is_some() && effect.update.is_none());
    let effect = session.take(delta(&["a"], &[], false), nothing(), 1).unwrap();
    assert!(effect.doubt && effect.resync.is_none(), "asked already");
    let effect = session
        .take(part(&[], false, true), nothing(), RESYNC_PAUSE)
        .unwrap();
    assert!(effect.resync.is_some() && effect.update.is_none());
    session.take(part(&[], true, true), nothing(), 0).unwrap();
    session.take(part(&["a"], true, false), nothing(), 0).unwrap();
    let effect = session.take(delta(&["b"], &[], false), nothing(), 0).unwrap();
    assert!(effect.doubt && effect.update.is_none(), "a change in the middle");
}

#[test]
fn a_heartbeat_that_does_not_agree_asks_for_everything() {
    let mut session = Session::new(true, 1_000);
    let beat = |objects| {
        Some(Body::Heartbeat(Heartbeat {
            digest: Digest::default().to_bytes(),
            objects,
        }))
    };
    assert_eq!(session.take(beat(0), nothing(), 0).unwrap(), Effect::default());
    let effect = session.take(beat(1), nothing(), 0).unwrap();
    assert!(effect.doubt && effect.resync.is_some());
    session.take(part(&["a"], true, false), nothing(), 0).unwrap();
    assert_eq!(
        session.take(beat(1), nothing(), RESYNC_PAUSE).unwrap(),
        Effect::default()
    );
}

#[test]
fn more_bytes_than_the_limit_end_the_session() {
    let mut session = session();
    // Manifests may be as much again.
    let many: Vec<String> = (0..40).map(|n| format!("uid-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        session.take(part(&many, true, false), nothing(), 0),
        Err(Broken::TooLarge(1_000))
    );
}

#[test]
fn versions_are_agreed_on_or_refused() {
    let hello = |protocol_min, protocol_max| Hello {
        protocol_min,
        protocol_max,
        ..Hello::default()
    };
    assert_eq!(agree(&hello(1, 7)), Ok(2));
    assert!(agree(&hello(3, 7)).is_err());
    assert_eq!(
        SPOKEN,
        format!("{} to {}", proto::PROTOCOL_MIN, proto::PROTOCOL_MAX)
    );
    assert_eq!(
        session().take(Some(Body::Hello(hello(2, 2))), nothing(), 0),
        Err(Broken::Hello)
    );
}
