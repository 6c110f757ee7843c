//! A store that was restored from a backup, and forgets grants.

use super::*;

/// A hub whose store was restored from a backup: it remembers token 3, and 7 was granted. Known since time 10.
fn forgetful(holder: Option<Holder>, delayed: bool) -> Grantor {
    let record = Record {
        token: 3,
        holder,
        delayed,
        revoked: false,
    };
    let mut grantor = Grantor::restored(record, 0, &TERMS);
    let effects = grantor.store_restored(10, &TERMS);
    assert!(matches!(&effects[..], [Effect::Commit { record, .. }] if record.holder.is_some()));
    grantor
}

#[test]
fn a_restored_store_waits_for_who_is_not_known_and_nobody_cuts_that_short() {
    let mut grantor = forgetful(None, false);
    grantor.ask(operation("b", "1"), 7, 11);
    for (who, of) in [("a", 7), ("b", 7), ("b", 3), ("", 3)] {
        let effects = grantor.release(&operation(who, "1"), of);
        assert!(matches!(effects[..], [Effect::Released { .. }]));
        grantor.withdraw(&operation(who, "9"), 0);
    }
    assert!(advance(&mut grantor, RESTORED - 1).is_empty());
    assert_eq!(token(&advance(&mut grantor, RESTORED)), Some(8));
}

#[test]
fn who_shows_a_lost_grant_during_that_wait_goes_on_under_it() {
    let mut grantor = forgetful(None, false);
    grantor.ask(operation("b", "1"), 0, 10);
    let effects = grantor.renew(&operation("a", "1"), 7, 20, &TERMS);
    assert!(
        matches!(&effects[..], [Effect::Commit { record, grant: None }, Effect::Renewed { token: 7, .. }] if record.token == 7),
        "{effects:?}"
    );
    let late = grantor.renew(&operation("c", "1"), 5, 21, &TERMS);
    assert!(
        matches!(late[..], [Effect::Revoke { .. }]),
        "7 was granted after it"
    );
    let absurd = grantor.renew(&operation("c", "2"), u64::MAX, 22, &TERMS);
    assert!(matches!(absurd[..], [Effect::Revoke { .. }]));
    grantor.release(&operation("a", "1"), 7);
    assert!(
        advance(&mut grantor, RESTORED - 1).is_empty(),
        "there may be others"
    );
    assert_eq!(token(&advance(&mut grantor, RESTORED)), Some(8));
}

#[test]
fn a_token_that_was_not_granted_is_believed_at_no_other_time() {
    let mut grantor = Grantor::default();
    let free = grantor.renew(&operation("a", "1"), 7, 0, &TERMS);
    assert!(matches!(free[..], [Effect::Revoke { .. }]), "{free:?}");
    let mut over = forgetful(None, false);
    let late = over.renew(&operation("a", "1"), 7, RESTORED, &TERMS);
    assert!(matches!(late[..], [Effect::Revoke { .. }]), "{late:?}");
}

#[test]
fn a_higher_token_that_was_seen_moves_the_next_grant_up_and_nothing_else() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    grantor.ask(operation("b", "1"), 9, 1);
    let silent = TERMS.expiry();
    assert!(advance(&mut grantor, silent).is_empty());
    let delayed = grantor.phase().clone();
    grantor.ask(operation("b", "1"), 12, silent + 1);
    assert_eq!(*grantor.phase(), delayed, "a genuine delay stays as it is");
    grantor.release(&operation("b", "1"), 12);
    grantor.ask(operation("b", "1"), u64::MAX, silent + 1);
    assert!(advance(&mut grantor, silent + TERMS.delay - 1).is_empty());
    assert_eq!(token(&advance(&mut grantor, silent + TERMS.delay)), Some(13));
}

#[test]
fn a_genuine_delay_outlasts_the_detection_of_a_restored_store() {
    let long = Terms { delay: 1000, ..TERMS };
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    let effects = grantor.advance(0, &long, false, |_| true);
    carry_out(&mut grantor, effects, 0);
    grantor.ask(operation("b", "1"), 0, 1);
    grantor.advance(TERMS.expiry(), &long, false, |_| true);
    // With terms that were longer when it began.
    grantor.store_restored(200, &TERMS);
    assert!(
        matches!(grantor.phase(), Phase::Delay { holder: Holder::Known(_), until, .. } if *until == TERMS.expiry() + 1000)
    );
    let effects = grantor.release(&operation("a", "1"), 1);
    carry_out(&mut grantor, effects, 201);
    assert!(
        advance(&mut grantor, 202).is_empty(),
        "somebody else may have a grant"
    );
    let over = 200 + TERMS.expiry() + TERMS.delay;
    assert!(advance(&mut grantor, over - 1).is_empty());
    assert_eq!(token(&advance(&mut grantor, over)), Some(2));
}

#[test]
fn a_wait_for_who_is_not_known_survives_a_restart() {
    let record = Record {
        token: 3,
        holder: Some(Holder::Unknown),
        delayed: true,
        revoked: false,
    };
    let mut grantor = Grantor::restored(record, 0, &TERMS);
    grantor.ask(operation("b", "1"), 0, 0);
    assert!(advance(&mut grantor, TERMS.expiry() + TERMS.delay - 1).is_empty());
    let effects = grantor.renew(&operation("a", "1"), 7, 20, &TERMS);
    assert!(matches!(effects[..], [_, Effect::Renewed { token: 7, .. }]));
}

#[test]
fn a_store_without_a_sign_of_life_for_longer_than_a_lease_lives_may_be_a_copy() {
    assert!(!TERMS.is_outdated(1000, 1000 + TERMS.expiry()));
    assert!(TERMS.is_outdated(1000, 1001 + TERMS.expiry()));
    assert!(
        TERMS.is_outdated(1001 + TERMS.expiry(), 1000),
        "a clock that was set back"
    );
}

#[test]
fn a_person_who_has_checked_ends_a_delay() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    assert!(grantor.release_delay(1).is_err(), "its holder renews");
    advance(&mut grantor, TERMS.expiry());
    assert!(grantor.release_delay(2).is_err());
    let effects = grantor.release_delay(1).unwrap();
    assert!(matches!(&effects[..], [Effect::Commit { record, .. }] if record.holder.is_none()));
    grantor.ask(operation("b", "1"), 0, TERMS.expiry());
    assert_eq!(token(&advance(&mut grantor, TERMS.expiry())), Some(2));
    let mut unknown = forgetful(None, false);
    unknown.ask(operation("b", "1"), 0, 11);
    unknown.release_delay(3).unwrap();
    assert_eq!(token(&advance(&mut unknown, 12)), Some(4));
}
