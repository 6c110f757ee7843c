use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    ttl: 100,
    delay: 50,
    drain: 30,
    patience: 1000,
};

fn operation(cluster: &str, id: &str) -> Operation {
    Operation {
        cluster: cluster.into(),
        id: id.into(),
        subject: "retention ns/p".into(),
    }
}

/// Runs effects with a store that always keeps; returns what goes out.
fn carry_out(grantor: &mut Grantor, effects: Vec<Effect>, now: Instant) -> Vec<Effect> {
    let mut out = Vec::new();
    for effect in effects {
        match effect {
            Effect::Commit(_) => {}
            Effect::Confirm(token) => out.extend(grantor.committed(token, now, &TERMS)),
            other => out.push(other),
        }
    }
    out
}

fn advance(grantor: &mut Grantor, now: Instant) -> Vec<Effect> {
    let effects = grantor.advance(now, &TERMS, false, |_| true);
    carry_out(grantor, effects, now)
}

fn token(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|e| match e {
        Effect::Grant(grant) => Some(grant.token),
        _ => None,
    })
}

#[test]
fn a_grant_is_told_only_after_it_is_kept_and_again_under_the_same_token() {
    let mut grantor = Grantor::default();
    assert!(grantor.ask(operation("a", "1"), 0, 0, &TERMS).is_empty());
    let effects = grantor.advance(0, &TERMS, false, |_| true);
    assert!(
        matches!(effects[..], [Effect::Commit(_), Effect::Confirm(1)]),
        "{effects:?}"
    );
    assert!(
        grantor.ask(operation("a", "1"), 0, 1, &TERMS).is_empty(),
        "not told before it is kept"
    );
    assert_eq!(token(&grantor.committed(1, 1, &TERMS)), Some(1));
    assert_eq!(token(&grantor.ask(operation("a", "1"), 0, 2, &TERMS)), Some(1));
    grantor.ask(operation("b", "1"), 0, 3, &TERMS);
    assert!(advance(&mut grantor, 4).is_empty(), "one at a time");
}

#[test]
fn a_grant_that_could_not_be_kept_spends_its_token() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    grantor.advance(0, &TERMS, false, |_| true);
    grantor.failed(1, 1);
    assert_eq!(token(&advance(&mut grantor, 2)), Some(2));
}

#[test]
fn a_silent_holder_is_followed_by_a_delay_that_only_its_own_end_cuts_short() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    advance(&mut grantor, 0);
    grantor.ask(operation("b", "1"), 0, 1, &TERMS);
    let expiry = TERMS.expiry();
    assert!(advance(&mut grantor, expiry).is_empty());
    assert!(matches!(grantor.phase(), Phase::Delay { .. }));
    assert!(advance(&mut grantor, expiry + TERMS.delay - 1).is_empty());
    let mut early = grantor.clone();
    let released = early.release(&operation("a", "1"), 1);
    carry_out(&mut early, released, expiry + 1);
    assert_eq!(token(&advance(&mut early, expiry + 1)), Some(2));
    grantor.release(&operation("b", "1"), 1);
    assert!(
        matches!(grantor.phase(), Phase::Delay { .. }),
        "of another operation"
    );
    assert_eq!(token(&advance(&mut grantor, expiry + TERMS.delay)), Some(2));
}

#[test]
fn after_a_restart_the_holder_has_a_full_lifetime() {
    let record = Record {
        token: 7,
        holder: Some(operation("a", "1")),
        delayed: false,
    };
    let mut grantor = Grantor::restored(record.clone(), 1000, &TERMS);
    grantor.ask(operation("b", "1"), 0, 1000, &TERMS);
    assert!(advance(&mut grantor, 1000 + TERMS.expiry() - 1).is_empty());
    let renewed = grantor.renew(&operation("a", "1"), 7, 1050, &TERMS);
    assert!(matches!(renewed[..], [Effect::Renewed { token: 7, .. }]));
    let delayed = Record {
        delayed: true,
        ..record
    };
    let mut grantor = Grantor::restored(delayed, 1000, &TERMS);
    grantor.ask(operation("b", "1"), 0, 1000, &TERMS);
    assert!(advance(&mut grantor, 1000 + TERMS.delay - 1).is_empty());
    assert_eq!(token(&advance(&mut grantor, 1000 + TERMS.delay)), Some(8));
}

#[test]
fn old_tokens_renew_nothing_and_release_nothing() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    advance(&mut grantor, 0);
    assert!(matches!(
        grantor.renew(&operation("a", "1"), 0, 1, &TERMS)[..],
        [Effect::Revoke { .. }]
    ));
    assert!(matches!(
        grantor.renew(&operation("b", "1"), 1, 1, &TERMS)[..],
        [Effect::Revoke { .. }]
    ));
    let effects = grantor.release(&operation("a", "1"), 0);
    assert!(
        matches!(effects[..], [Effect::Released { token: 0, .. }]),
        "told, so that it is not said for ever"
    );
    assert!(matches!(grantor.phase(), Phase::Held { .. }));
}

#[test]
fn what_a_person_takes_back_stays_locked_until_its_end() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    advance(&mut grantor, 0);
    assert!(grantor.revoke(9).is_err());
    assert!(matches!(
        grantor.revoke(1).unwrap()[..],
        [Effect::Revoke { token: 1, .. }]
    ));
    assert!(matches!(
        grantor.renew(&operation("a", "1"), 1, 1, &TERMS)[..],
        [Effect::Revoke { .. }]
    ));
    grantor.ask(operation("b", "1"), 0, 2, &TERMS);
    assert!(advance(&mut grantor, 3).is_empty());
    let effects = grantor.release(&operation("a", "1"), 1);
    carry_out(&mut grantor, effects, 4);
    assert_eq!(token(&advance(&mut grantor, 4)), Some(2));
}

#[test]
fn a_drain_waits_for_backups_but_not_for_ever() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    assert!(grantor.advance(0, &TERMS, true, |_| true).is_empty());
    assert!(matches!(grantor.phase(), Phase::Draining { .. }));
    let mut ended = grantor.clone();
    assert!(!ended.advance(5, &TERMS, false, |_| true).is_empty());
    assert!(grantor.advance(29, &TERMS, true, |_| true).is_empty());
    assert!(!grantor.advance(30, &TERMS, true, |_| true).is_empty());
}

#[test]
fn clusters_take_turns_and_who_is_away_holds_nobody_up() {
    let mut grantor = Grantor::default();
    for id in ["1", "2", "3"] {
        grantor.ask(operation("a", id), 0, 0, &TERMS);
    }
    grantor.ask(operation("b", "1"), 0, 1, &TERMS);
    let mut order = Vec::new();
    for now in 2..6 {
        advance(&mut grantor, now);
        let Phase::Held { grant, .. } = grantor.phase().clone() else {
            panic!()
        };
        order.push(format!("{}{}", grant.operation.cluster, grant.operation.id));
        let effects = grantor.release(&grant.operation, grant.token);
        carry_out(&mut grantor, effects, now);
    }
    assert_eq!(order, ["a1", "b1", "a2", "a3"]);
    grantor.ask(operation("a", "9"), 0, 10, &TERMS);
    grantor.ask(operation("b", "9"), 0, 11, &TERMS);
    grantor.advance(12, &TERMS, false, |cluster| cluster == "b");
    assert!(matches!(grantor.phase(), Phase::Granting(g) if &*g.operation.cluster == "b"));
    assert_eq!(grantor.waiting().len(), 1, "it keeps its place");
    grantor.advance(12 + TERMS.patience, &TERMS, false, |cluster| cluster == "b");
    assert!(grantor.waiting().is_empty(), "for a while");
}

/// A hub whose store was restored from a backup: it remembers token 3, and 7 was granted.
fn forgetful() -> Grantor {
    let record = Record {
        token: 3,
        holder: None,
        delayed: false,
    };
    Grantor::restored(record, 0, &TERMS)
}

#[test]
fn who_renews_under_a_token_that_the_hub_has_forgotten_goes_on_under_it() {
    let mut grantor = forgetful();
    grantor.ask(operation("b", "1"), 0, 0, &TERMS);
    grantor.advance(0, &TERMS, true, |_| true);
    assert!(matches!(grantor.phase(), Phase::Draining { .. }));
    let effects = grantor.renew(&operation("a", "1"), 7, 1, &TERMS);
    assert!(
        matches!(&effects[..], [Effect::Commit(record), Effect::Renewed { token: 7, .. }] if record.token == 7),
        "{effects:?}"
    );
    assert!(advance(&mut grantor, 2).is_empty(), "b waits again");
    grantor.release(&operation("a", "1"), 7);
    assert_eq!(token(&advance(&mut grantor, 3)), Some(8));
    let absurd = grantor.renew(&operation("a", "2"), u64::MAX, 4, &TERMS);
    assert!(matches!(absurd[..], [Effect::Revoke { .. }]));
}

#[test]
fn whoever_may_hold_a_forgotten_token_is_waited_for() {
    let mut grantor = forgetful();
    let effects = grantor.ask(operation("b", "1"), 7, 0, &TERMS);
    assert!(matches!(&effects[..], [Effect::Commit(record)] if record.token == 7 && record.delayed));
    assert!(grantor.ask(operation("b", "1"), 7, 1, &TERMS).is_empty(), "once");
    let over = TERMS.expiry() + TERMS.delay;
    assert!(advance(&mut grantor, over - 1).is_empty());
    let mut ended = grantor.clone();
    ended.release(&operation("a", "1"), 7);
    assert_eq!(token(&advance(&mut ended, 2)), Some(8), "its end is proven");
    assert_eq!(token(&advance(&mut grantor, over)), Some(8));
}

#[test]
fn a_grant_that_its_job_did_not_live_to_hear_of_is_free_again() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0, &TERMS);
    advance(&mut grantor, 0);
    grantor.ask(operation("b", "1"), 0, 1, &TERMS);
    let mut opened = grantor.clone();
    assert!(opened.withdraw(&operation("a", "1"), 1).is_empty());
    assert!(advance(&mut opened, 2).is_empty(), "its pod was lost");
    let effects = grantor.withdraw(&operation("a", "1"), 0);
    assert!(matches!(&effects[..], [Effect::Commit(record)] if record.holder.is_none()));
    assert_eq!(token(&advance(&mut grantor, 2)), Some(2));
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u8, u8),
    Withdraw(u8, u8),
    /// Of the present or an old token.
    Renew(u8, u8, u64),
    Release(u8, u8, u64),
    Pass(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..3, 0u8..3).prop_map(|(c, i)| Step::Ask(c, i)),
        (0u8..3, 0u8..3).prop_map(|(c, i)| Step::Withdraw(c, i)),
        (0u8..3, 0u8..3, 0u64..3).prop_map(|(c, i, back)| Step::Renew(c, i, back)),
        (0u8..3, 0u8..3, 0u64..3).prop_map(|(c, i, back)| Step::Release(c, i, back)),
        (0u64..80).prop_map(Step::Pass),
        Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens: tokens rise with every new grant, a lease is never granted to another before it was released
    /// or has expired and the delay has passed, and a restart forgets no grant.
    #[test]
    fn the_lock_is_held_by_one(steps in prop::collection::vec(step(), 0..80)) {
        let (mut grantor, mut now, mut disk) = (Grantor::default(), 0u64, None::<Record>);
        // Who was told last, until when it may think so, and whether it said that it had ended.
        let mut told: Option<(Grant, u64)> = None;
        let mut highest = 0;
        for step in steps {
            let name = |c: u8, i: u8| operation(&c.to_string(), &i.to_string());
            let effects = match step {
                Step::Ask(c, i) => grantor.ask(name(c, i), 0, now, &TERMS),
                Step::Withdraw(c, i) => {
                    let (operation, opened) = (name(c, i), told.as_ref().map_or(0, |(g, _)| g.token));
                    grantor.withdraw(&operation, opened)
                }
                Step::Renew(c, i, back) => grantor.renew(&name(c, i), grantor.token().saturating_sub(back), now, &TERMS),
                Step::Release(c, i, back) => {
                    let token = grantor.token().saturating_sub(back);
                    if told.as_ref().is_some_and(|(g, _)| g.token == token && g.operation == name(c, i)) {
                        told = None;
                    }
                    grantor.release(&name(c, i), token)
                }
                Step::Pass(by) => { now += by; Vec::new() }
                Step::Restart => {
                    grantor = disk.clone().map_or_else(Grantor::default, |record| Grantor::restored(record, now, &TERMS));
                    Vec::new()
                }
            };
            let mut queue: std::collections::VecDeque<Effect> = effects.into();
            queue.extend(grantor.advance(now, &TERMS, false, |_| true));
            while let Some(effect) = queue.pop_front() {
                match effect {
                    Effect::Commit(record) => disk = Some(record),
                    Effect::Confirm(token) => queue.extend(grantor.committed(token, now, &TERMS)),
                    Effect::Grant(grant) => {
                        if let Some((before, until)) = &told && before.token != grant.token {
                            prop_assert!(now >= until + TERMS.delay, "{before:?} until {until}, {grant:?} at {now}");
                        }
                        prop_assert!(grant.token > highest || told.as_ref().is_none_or(|(g, _)| g.token == grant.token));
                        highest = highest.max(grant.token);
                        // Told again is not longer: only renewals count for the holder.
                        if told.as_ref().is_none_or(|(g, _)| g.token != grant.token) {
                            told = Some((grant, now + TERMS.ttl));
                        }
                    }
                    Effect::Renewed { token, .. } => {
                        let (grant, until) = told.as_mut().expect("a renewal without a grant");
                        prop_assert_eq!(grant.token, token);
                        *until = now + TERMS.ttl;
                    }
                    _ => {}
                }
            }
        }
    }
}
