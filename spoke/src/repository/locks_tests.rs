use super::*;

const MINUTE: Boot = 60_000;
const RULES: Rules<'static> = Rules {
    after: 35 * MINUTE,
    after_end: 35 * MINUTE,
    spread: 0,
    cluster: "a",
};

fn at(minute: u64) -> Moment {
    Moment {
        boot: minute * MINUTE,
        wall: Timestamp::from_second(1_800_000_000 + i64::try_from(minute * 60).unwrap()).unwrap(),
    }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn lock(user: &str, written: u64) -> LockFile {
    LockFile {
        time: at(written).wall,
        exclusive: false,
        host: "h".to_owned(),
        user: user.to_owned(),
        pid: 9,
    }
}

/// Looks at a list, and reads all that is new as written at that very minute.
fn look(watch: &mut Watch, ids: &[&str], minute: u64, user: &str) {
    let ids: Vec<String> = ids.iter().map(|&i| i.to_owned()).collect();
    watch.look(&ids, at(minute), at(minute));
    let locks = watch.locks().into_iter();
    let new = locks.filter(|(_, seen)| seen.content == Content::Unread);
    let new: Vec<String> = new.map(|(id, _)| id.to_owned()).collect();
    for id in new {
        watch.read(&id, Content::Read(lock(user, minute)));
    }
}

fn verdicts(watch: &Watch, minute: u64, life: Life) -> Vec<Verdict> {
    let judged = watch.judge(RULES, at(minute).boot, |_| life.clone()).into_iter();
    judged.map(|(_, verdict)| verdict).collect()
}

#[test]
fn only_an_id_that_stays_for_long_is_left_over() {
    let (mut watch, one) = (Watch::default(), id('1'));
    for minute in (0..=30).step_by(5) {
        look(&mut watch, &[&one], minute, "root");
        assert!(
            matches!(
                verdicts(&watch, minute, Life::Elsewhere)[..],
                [Verdict::Wait(until, _)] if until == 35 * MINUTE
            ),
            "{minute}"
        );
    }
    look(&mut watch, &[&one], 35, "root");
    assert_eq!(verdicts(&watch, 35, Life::Elsewhere), [Verdict::Remove]);
    assert_eq!(verdicts(&watch, 35, Life::Gone), [Verdict::Remove]);
    assert_eq!(verdicts(&watch, 35, Life::Ended), [Verdict::Remove]);
    // One that goes while another stays is forgotten: if it is there again, its wait begins anew.
    let two = id('2');
    look(&mut watch, &[&one, &two], 40, "root");
    look(&mut watch, &[&one], 45, "root");
    assert_eq!(watch.locks().len(), 1);
    look(&mut watch, &[&one, &two], 50, "root");
    assert!(matches!(
        verdicts(&watch, 80, Life::Elsewhere)[..],
        [Verdict::Remove, Verdict::Wait(until, _)] if until == 85 * MINUTE
    ));
}

#[test]
fn what_tests_shorten_is_the_wait_for_a_holder_that_is_proven_dead() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "root");
    look(&mut watch, &[&one], 1, "root");
    let short = Rules {
        after_end: MINUTE,
        ..RULES
    };
    let told = |life: Life| watch.judge(short, at(2).boot, |_| life.clone())[0].1.clone();
    assert_eq!(told(Life::Ended), Verdict::Remove);
    assert_eq!(told(Life::Gone), Verdict::Remove);
    assert!(matches!(told(Life::Elsewhere), Verdict::Wait(..)));
}

#[test]
fn a_live_restic_changes_its_id_and_stays_for_ever() {
    let mut watch = Watch::default();
    for n in 0..100u64 {
        // Both files are there for a moment while it changes.
        let (old, new) = (format!("{n:064x}"), format!("{:064x}", n + 1));
        look(&mut watch, &[&old, &new], n * 5, "root");
        for verdict in verdicts(&watch, n * 5 + 4, Life::Elsewhere) {
            assert!(matches!(verdict, Verdict::Wait(..)), "{n}: {verdict:?}");
        }
    }
}

#[test]
fn a_lock_that_went_and_came_back_begins_anew() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "root");
    look(&mut watch, &[], 20, "root");
    look(&mut watch, &[&one], 25, "root");
    assert!(matches!(
        verdicts(&watch, 40, Life::Elsewhere)[..],
        [Verdict::Wait(..)]
    ));
}

#[test]
fn what_one_of_our_pods_may_hold_stays_however_old_it_is() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "fleet:a:pod:0");
    let kept = verdicts(&watch, 1000, Life::Alive("pod shop/x".to_owned()));
    assert_eq!(kept[0].kept_because(), Some("pod shop/x may still be at work"));
}

#[test]
fn what_was_seen_before_the_wait_was_over_or_before_the_holder_ended_proves_nothing() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "fleet:a:pod:0");
    look(&mut watch, &[&one], 30, "fleet:a:pod:0");
    // It may have been removed at minute 31.
    let waits = |watch: &Watch, minute| match verdicts(watch, minute, Life::Ended)[..] {
        [Verdict::Wait(until, _)] => Some(until),
        _ => None,
    };
    assert_eq!(waits(&watch, 36), Some(35 * MINUTE), "a look is due");
    // Its holder works for an hour, and removes its lock when it ends.
    look(&mut watch, &[&one], 40, "fleet:a:pod:0");
    watch.meet(at(60).boot, |_| Life::Alive("pod shop/x".to_owned()));
    assert_eq!(waits(&watch, 61), Some(60 * MINUTE + 1), "a look is due");
    look(&mut watch, &[&one], 62, "fleet:a:pod:0");
    assert_eq!(
        verdicts(&watch, 62, Life::Ended),
        [Verdict::Remove],
        "it has left it"
    );
}

#[test]
fn what_cannot_be_read_stays() {
    let (mut watch, one) = (Watch::default(), id('1'));
    watch.look(std::slice::from_ref(&one), at(0), at(0));
    let told = |watch: &Watch| verdicts(watch, 1000, Life::Gone)[0].clone();
    assert!(matches!(told(&watch), Verdict::Keep(_)), "not read yet");
    watch.read(
        &one,
        Content::Unreadable("ciphertext verification failed".to_owned()),
    );
    assert!(told(&watch).kept_because().unwrap().contains("ciphertext"));
}

#[test]
fn clocks_that_differ_remove_nothing() {
    let (one, two) = (id('1'), id('2'));
    // Written between two looks, it says a time long before the first of them, or after the second.
    for (written, told) in [(14, false), (9, true), (21, false), (27, true)] {
        let mut watch = Watch::default();
        look(&mut watch, &[&one], 0, "root");
        look(&mut watch, &[&one], 15, "root");
        watch.look(&[one.clone(), two.clone()], at(20), at(20));
        watch.read(&two, Content::Read(lock("root", written)));
        look(&mut watch, &[&one, &two], 35, "root");
        let verdict = verdicts(&watch, 40, Life::Gone)[0].clone();
        match verdict {
            Verdict::Remove => assert!(!told, "{written}"),
            Verdict::Keep(text) => assert!(told && text.contains("clock"), "{written}: {text}"),
            other @ Verdict::Wait(..) => panic!("{other:?}"),
        }
    }
    // One that was there before we first looked may be as old as it likes.
    let mut watch = Watch::default();
    watch.look(std::slice::from_ref(&one), at(500), at(500));
    watch.read(&one, Content::Read(lock("root", 10)));
    look(&mut watch, &[&one], 540, "root");
    assert_eq!(verdicts(&watch, 540, Life::Gone), [Verdict::Remove]);
}

#[test]
fn a_wall_clock_that_was_set_begins_the_wait_anew() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "root");
    let odd = Moment {
        boot: 30 * MINUTE,
        wall: at(60).wall,
    };
    watch.look(std::slice::from_ref(&one), odd, odd);
    watch.read(&one, Content::Read(lock("root", 0)));
    assert!(matches!(
        verdicts(&watch, 40, Life::Gone)[..],
        [Verdict::Wait(..)]
    ));
}

#[test]
fn others_wait_longer_so_that_one_cluster_is_enough() {
    let (mut watch, one) = (Watch::default(), id('1'));
    look(&mut watch, &[&one], 0, "root");
    look(&mut watch, &[&one], 65, "root");
    let told = |cluster: &str, life: Life, minute| {
        let rules = Rules {
            spread: 30 * MINUTE,
            cluster,
            ..RULES
        };
        watch.judge(rules, at(minute).boot, |_| life.clone())[0].1.clone()
    };
    assert_eq!(told("a", Life::Gone, 35), Verdict::Remove, "its own");
    let clusters: Vec<String> = (0..50).map(|n| format!("cluster-{n}")).collect();
    let at_once = |minute| {
        let remove = |c: &&String| told(c, Life::Elsewhere, minute) == Verdict::Remove;
        clusters.iter().filter(remove).count()
    };
    assert!(
        at_once(36) < 10 && at_once(50) > 10,
        "they come one after the other"
    );
    assert_eq!(at_once(65), 50);
}
