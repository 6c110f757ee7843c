mod restored;

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
            Effect::Commit { grant: None, .. } => {}
            Effect::Commit {
                grant: Some(grant), ..
            } => out.extend(grantor.committed(grant.token, now, &TERMS)),
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
    assert!(grantor.ask(operation("a", "1"), 0, 0).is_empty());
    let effects = grantor.advance(0, &TERMS, false, |_| true);
    assert!(
        matches!(&effects[..], [Effect::Commit { grant: Some(grant), .. }] if grant.token == 1),
        "{effects:?}"
    );
    assert!(
        grantor.ask(operation("a", "1"), 0, 1).is_empty(),
        "not told before it is kept"
    );
    assert_eq!(token(&grantor.committed(1, 1, &TERMS)), Some(1));
    assert_eq!(token(&grantor.ask(operation("a", "1"), 0, 2)), Some(1));
    grantor.ask(operation("b", "1"), 0, 3);
    assert!(advance(&mut grantor, 4).is_empty(), "one at a time");
}

#[test]
fn a_grant_that_could_not_be_kept_spends_its_token() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    grantor.advance(0, &TERMS, false, |_| true);
    grantor.failed(1);
    assert_eq!(token(&advance(&mut grantor, 2)), Some(2));
}

#[test]
fn a_silent_holder_is_followed_by_a_delay_that_only_its_own_end_cuts_short() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    grantor.ask(operation("b", "1"), 0, 1);
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
        holder: Some(Holder::Known(operation("a", "1"))),
        ..Record::default()
    };
    let mut grantor = Grantor::restored(record.clone(), 1000, &TERMS);
    grantor.ask(operation("b", "1"), 0, 1000);
    assert!(advance(&mut grantor, 1000 + TERMS.expiry() - 1).is_empty());
    let renewed = grantor.renew(&operation("a", "1"), 7, 1050, &TERMS);
    assert!(matches!(renewed[..], [Effect::Renewed { token: 7, .. }]));
    let delayed = Record {
        delayed: true,
        ..record
    };
    let mut grantor = Grantor::restored(delayed, 1000, &TERMS);
    grantor.ask(operation("b", "1"), 0, 1000);
    assert!(advance(&mut grantor, 1000 + TERMS.delay - 1).is_empty());
    let longer = TERMS.expiry().max(TERMS.delay);
    assert_eq!(token(&advance(&mut grantor, 1000 + longer)), Some(8));
}

#[test]
fn old_tokens_renew_nothing_and_release_nothing() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
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
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    assert!(grantor.revoke(9).is_err());
    assert!(matches!(
        grantor.revoke(1).unwrap()[..],
        [Effect::Commit { .. }, Effect::Revoke { token: 1, .. }]
    ));
    assert!(matches!(
        grantor.renew(&operation("a", "1"), 1, 1, &TERMS)[..],
        [Effect::Revoke { .. }]
    ));
    grantor.ask(operation("b", "1"), 0, 2);
    assert!(advance(&mut grantor, 3).is_empty());
    let effects = grantor.release(&operation("a", "1"), 1);
    carry_out(&mut grantor, effects, 4);
    assert_eq!(token(&advance(&mut grantor, 4)), Some(2));
}

#[test]
fn a_drain_waits_for_backups_but_not_for_ever() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
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
        grantor.ask(operation("a", id), 0, 0);
    }
    grantor.ask(operation("b", "1"), 0, 1);
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
    grantor.ask(operation("a", "9"), 0, 10);
    grantor.ask(operation("b", "9"), 0, 11);
    grantor.advance(12, &TERMS, false, |cluster| cluster == "b");
    assert!(matches!(grantor.phase(), Phase::Granting { grant, .. } if &*grant.operation.cluster == "b"));
    assert_eq!(grantor.waiting().len(), 1, "it keeps its place");
    grantor.advance(12 + TERMS.patience, &TERMS, false, |cluster| cluster == "b");
    assert!(grantor.waiting().is_empty(), "for a while");
}

#[test]
fn after_a_start_nothing_new_is_granted_for_one_life() {
    let free = Record {
        token: 3,
        ..Record::default()
    };
    for mut grantor in [Grantor::restored(free, 0, &TERMS), Grantor::fresh(TERMS.expiry())] {
        grantor.ask(operation("b", "1"), 0, 0);
        assert!(advance(&mut grantor, TERMS.expiry() - 1).is_empty());
        assert_eq!(*grantor.phase(), Phase::Free, "and no backup is held up for it");
        assert!(token(&advance(&mut grantor, TERMS.expiry())).is_some());
    }
}

const RESTORED: Instant = 10 + 111 + 50;

#[test]
fn what_was_taken_back_stays_so_after_a_restart_and_its_holder_may_fall_silent() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    let effects = grantor.revoke(1).unwrap();
    let [Effect::Commit { record, .. }, Effect::Revoke { .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let mut grantor = Grantor::restored(record.clone(), 0, &TERMS);
    assert!(matches!(
        grantor.renew(&operation("a", "1"), 1, 1, &TERMS)[..],
        [Effect::Revoke { .. }]
    ));
    advance(&mut grantor, TERMS.expiry());
    assert!(matches!(grantor.phase(), Phase::Delay { .. }));
}

#[test]
fn a_cluster_that_is_away_at_the_end_of_a_drain_is_passed_over() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    grantor.ask(operation("b", "1"), 0, 0);
    assert!(grantor.advance(0, &TERMS, true, |_| true).is_empty());
    assert!(matches!(grantor.phase(), Phase::Draining { first, .. } if &*first.operation.cluster == "a"));
    let without_a = |cluster: &str| cluster != "a";
    assert!(grantor.advance(10, &TERMS, true, without_a).is_empty());
    let effects = grantor.advance(TERMS.drain, &TERMS, true, without_a);
    assert!(
        matches!(&effects[..], [Effect::Commit { grant: Some(grant), .. }] if &*grant.operation.cluster == "b")
    );
    assert_eq!(
        &*grantor.waiting()[0].operation.cluster,
        "a",
        "it keeps its place"
    );
    assert_eq!(grantor.waiting()[0].seen, 0, "and is forgotten as others are");
}

#[test]
fn a_withdrawal_ends_the_drain() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    grantor.advance(0, &TERMS, true, |_| true);
    grantor.withdraw(&operation("a", "1"), 0);
    assert!(grantor.is_idle());
}

#[test]
fn what_could_not_be_kept_is_kept_before_the_next_answer() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    let effects = grantor.release(&operation("a", "1"), 1);
    assert!(
        matches!(effects[..], [Effect::Commit { .. }, Effect::Released { .. }]),
        "in this order"
    );
    grantor.failed(1);
    assert!(!grantor.is_idle());
    let again = grantor.release(&operation("a", "1"), 1);
    assert!(
        matches!(&again[..], [Effect::Commit { record, .. }, Effect::Released { .. }] if record.holder.is_none())
    );
    grantor.failed(2);
    let later = grantor.advance(3, &TERMS, false, |_| true);
    assert!(matches!(later[..], [Effect::Commit { .. }]));
}

#[test]
fn a_grant_that_its_job_did_not_live_to_hear_of_is_free_again() {
    let mut grantor = Grantor::default();
    grantor.ask(operation("a", "1"), 0, 0);
    advance(&mut grantor, 0);
    grantor.ask(operation("b", "1"), 0, 1);
    let mut opened = grantor.clone();
    assert!(opened.withdraw(&operation("a", "1"), 1).is_empty());
    assert!(advance(&mut opened, 2).is_empty(), "its pod was lost");
    let effects = grantor.withdraw(&operation("a", "1"), 0);
    assert!(matches!(&effects[..], [Effect::Commit { record, .. }] if record.holder.is_none()));
    assert_eq!(token(&advance(&mut grantor, 2)), Some(2));
}

#[derive(Clone, Debug)]
enum Step {
    /// With a token that was seen, so much below the highest.
    Ask(u8, u8, Option<u64>),
    Withdraw(u8, u8),
    /// Of the present or an old token.
    Renew(u8, u8, u64),
    Release(u8, u8, u64),
    Revoke,
    Pass(u64),
    Restart,
    /// The next commit fails.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..2, 0u8..2, prop::option::of(0u64..3)).prop_map(|(c, i, seen)| Step::Ask(c, i, seen)),
        1 => (0u8..2, 0u8..2).prop_map(|(c, i)| Step::Withdraw(c, i)),
        3 => (0u8..2, 0u8..2, 0u64..2).prop_map(|(c, i, back)| Step::Renew(c, i, back)),
        3 => (0u8..2, 0u8..2, 0u64..2).prop_map(|(c, i, back)| Step::Release(c, i, back)),
        1 => Just(Step::Revoke),
        3 => (0u64..80).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => Just(Step::Break),
    ]
}

/// What was sent to a spoke, and what it may conclude.
struct Told {
    grant: Grant,
    /// Until when it may believe that it holds the lock.
    until: Instant,
    released: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Whatever happens: tokens rise with every new grant, a lease is never granted to another before it was released
    /// or has expired and the delay has passed, and neither a restart nor a commit that fails forgets a grant.
    #[test]
    fn the_lock_is_held_by_one(steps in prop::collection::vec(step(), 0..120)) {
        let (mut grantor, mut now, mut disk) = (Grantor::default(), 0u64, None::<Record>);
        let mut told: Vec<Told> = Vec::new();
        let mut broken = false;
        for step in steps {
            let name = |c: u8, i: u8| operation(&c.to_string(), &i.to_string());
            let highest = told.last().map_or(0, |t| t.grant.token);
            let effects = match step {
                Step::Ask(c, i, seen) => grantor.ask(name(c, i), seen.map_or(0, |back| highest.saturating_sub(back)), now),
                Step::Withdraw(c, i) => {
                    let own = told.iter().filter(|t| t.grant.operation == name(c, i));
                    let opened = own.map(|t| t.grant.token).max().unwrap_or(0);
                    grantor.withdraw(&name(c, i), opened)
                }
                Step::Renew(c, i, back) => grantor.renew(&name(c, i), highest.saturating_sub(back), now, &TERMS),
                Step::Release(c, i, back) => {
                    let (token, of) = (highest.saturating_sub(back), name(c, i));
                    for told in &mut told {
                        told.released |= told.grant.token == token && told.grant.operation == of;
                    }
                    grantor.release(&of, token)
                }
                Step::Revoke => grantor.revoke(highest).unwrap_or_default(),
                Step::Pass(by) => { now += by; Vec::new() }
                Step::Restart => {
                    grantor = disk.clone().map_or_else(Grantor::default, |record| Grantor::restored(record, now, &TERMS));
                    Vec::new()
                }
                Step::Break => { broken = true; Vec::new() }
            };
            for effects in [Some(effects), None] {
                let time_passes = |grantor: &mut Grantor| grantor.advance(now, &TERMS, false, |_| true);
                let effects = effects.unwrap_or_else(|| time_passes(&mut grantor));
                let mut queue: std::collections::VecDeque<Effect> = effects.into();
                while let Some(effect) = queue.pop_front() {
                    match effect {
                        Effect::Commit { .. } if std::mem::take(&mut broken) => {
                            grantor.failed(now);
                            queue.clear();
                        }
                        Effect::Commit { record, grant } => {
                            prop_assert!(disk.as_ref().is_none_or(|before| record.token >= before.token));
                            disk = Some(record);
                            if let Some(grant) = grant {
                                queue.extend(grantor.committed(grant.token, now, &TERMS));
                            }
                        }
                        Effect::Grant(grant) => {
                            let on_disk = disk.as_ref().and_then(|record| record.holder.clone());
                            prop_assert_eq!(on_disk, Some(Holder::Known(grant.operation.clone())), "not kept");
                            if let Some(again) = told.iter().find(|t| t.grant.token == grant.token) {
                                // Sent again is not longer: only renewals count for the holder.
                                prop_assert_eq!(&again.grant.operation, &grant.operation);
                                continue;
                            }
                            for before in &told {
                                prop_assert!(grant.token > before.grant.token);
                                prop_assert!(
                                    before.released || now >= before.until + TERMS.delay,
                                    "{:?} until {}, {grant:?} at {now}", before.grant, before.until
                                );
                            }
                            told.push(Told { grant, until: now + TERMS.ttl, released: false });
                        }
                        Effect::Renewed { operation, token } => {
                            let told = told.last_mut().expect("a renewal without a grant");
                            prop_assert_eq!((&told.grant.operation, told.grant.token), (&operation, token));
                            prop_assert!(!told.released, "renewed after its release was taken in");
                            told.until = now + TERMS.ttl;
                        }
                        Effect::Released { operation, token } => {
                            let held = disk.as_ref().is_some_and(|r| r.token == token && r.holder.is_some() && !r.delayed);
                            let its = told.iter().any(|t| t.grant.token == token && t.grant.operation == operation);
                            prop_assert!(!(held && its), "answered before it was kept");
                        }
                        Effect::Revoke { .. } => {}
                    }
                }
            }
        }
    }
}
