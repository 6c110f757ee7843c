//! An outcome as it fits into a termination message, which holds 4096 bytes in all. Pure.

use proto::plan::cut;
use proto::v1::{Baseline, OperationOutcome};

/// Longest text in a message.
const TEXT_MAX: usize = 1500;
/// Longest entry of a list in it.
const ENTRY_MAX: usize = 120;
/// Longest message as JSON, in bytes.
const MESSAGE_MAX: usize = 4000;
/// Most figures of clusters and groups in it. Of the shortest more do not fit either.
const LEFT_MAX: usize = 128;
/// Entries of a list in it, as far as they fit.
const LISTS: [usize; 6] = [8, 6, 4, 2, 1, 0];

/// The outcome with texts and lists shortened until it fits.
#[must_use]
pub fn bounded(mut outcome: OperationOutcome) -> OperationOutcome {
    outcome.message = outcome.message.chars().take(TEXT_MAX / 2).collect();
    for fault in &mut outcome.faults {
        fault.text = fault.text.chars().take(ENTRY_MAX).collect();
    }
    let fitting = LISTS.iter().map(|&most| shortened(&outcome, most));
    let fits = |o: &OperationOutcome| serde_json::to_string(o).is_ok_and(|text| text.len() <= MESSAGE_MAX);
    let mut last = OperationOutcome::default();
    for one in fitting {
        if fits(&one) {
            return filled(one, &outcome.left, fits);
        }
        last = one;
    }
    last
}

/// The outcome with as many of the figures in `left` as there is room for: the next run's guard needs them.
fn filled(
    mut outcome: OperationOutcome,
    left: &[Baseline],
    fits: impl Fn(&OperationOutcome) -> bool,
) -> OperationOutcome {
    let most = left.len().min(LEFT_MAX);
    for most in (outcome.left.len()..=most).rev() {
        let mut more = left.to_vec();
        cut(&mut more, most);
        let more = OperationOutcome {
            left: more,
            ..outcome.clone()
        };
        if fits(&more) {
            outcome = more;
            break;
        }
    }
    outcome
}

/// The outcome with at most `most` entries in its lists.
fn shortened(outcome: &OperationOutcome, most: usize) -> OperationOutcome {
    let mut outcome = outcome.clone();
    for list in [
        &mut outcome.unmatched,
        &mut outcome.policies,
        &mut outcome.removed_locks,
        &mut outcome.broken_packs,
    ] {
        let more = list.len().saturating_sub(most);
        list.truncate(most);
        for text in list.iter_mut() {
            *text = text.chars().take(ENTRY_MAX).collect();
        }
        if more > 0 {
            list.push(format!("and {more} more"));
        }
    }
    // What is missing here is shown, or counted, by a later run.
    outcome.faults.truncate(most);
    cut(&mut outcome.left, 3 * most);
    // The first one is that of the Job's own policy.
    outcome.shown.truncate(most.max(1));
    outcome.matched.truncate(most.max(1));
    outcome
}

#[cfg(test)]
mod tests {
    use proto::v1::PolicyFault;

    use super::super::failed;
    use super::*;

    #[test]
    fn what_concerns_the_jobs_own_policy_is_not_cut_off() {
        let names = || (0..100).map(|at| format!("a/ns/p{at}"));
        let mut outcome = OperationOutcome {
            unmatched: names().collect(),
            shown: names().map(|name| format!("{name}#print")).collect(),
            policies: names().map(|name| format!("{name}@1")).collect(),
            faults: names()
                .map(|source| PolicyFault {
                    source,
                    text: "bad".to_owned(),
                })
                .collect(),
            matched: names().map(|key| Baseline { key, left: 1 }).collect(),
            ..OperationOutcome::default()
        };
        super::super::outcome::own_first(&mut outcome, "a/ns/p9");
        let short = bounded(outcome);
        assert!(short.shown.len() < 100);
        let own = "a/ns/p9".to_owned();
        assert_eq!((&short.unmatched[0], &short.faults[0].source), (&own, &own));
        assert_eq!(
            (short.shown[0].as_str(), short.policies[0].as_str()),
            ("a/ns/p9#print", "a/ns/p9@1")
        );
        assert_eq!(short.matched[0].key, own);
    }

    #[test]
    fn the_figures_of_groups_fill_what_is_free() {
        let left = |count: usize| {
            let entry = |at: usize| Baseline {
                key: format!("group/{at:016}"),
                left: 100,
            };
            let outcome = OperationOutcome {
                left: proto::plan::whole((0..count).map(entry).collect()),
                ..failed("Reason", String::new())
            };
            let short = bounded(outcome);
            assert!(serde_json::to_string(&short).unwrap().len() <= MESSAGE_MAX);
            short.left
        };
        assert_eq!((left(60).len(), proto::plan::is_cut(&left(60))), (61, false));
        assert!(left(500).len() > 60 && proto::plan::is_cut(&left(500)));
    }

    #[test]
    fn an_operation_without_figures_says_nothing_of_them() {
        let unlocked = OperationOutcome {
            result: "Applied".to_owned(),
            removed_locks: vec!["ab".repeat(32)],
            ..OperationOutcome::default()
        };
        assert!(bounded(unlocked).left.is_empty());
    }

    #[test]
    fn the_jobs_own_policy_counts_as_previewed_in_the_shortest_message() {
        let outcome = OperationOutcome {
            message: "ü\"".repeat(5000),
            faults: vec![
                PolicyFault {
                    source: "a/ns/p".repeat(60),
                    text: "bad".to_owned(),
                };
                20
            ],
            unmatched: vec!["ü\"".repeat(60); 20],
            policies: vec!["ü\"".repeat(60); 20],
            removed_locks: vec!["ü\"".repeat(60); 20],
            broken_packs: vec!["ü\"".repeat(60); 20],
            shown: vec![format!("{}#print", "n".repeat(380)); 3],
            matched: vec![
                Baseline {
                    key: "n".repeat(380),
                    left: 1
                };
                3
            ],
            ..failed("Reason", String::new())
        };
        let short = bounded(outcome);
        assert!(short.faults.is_empty(), "nothing longer fits");
        assert_eq!(short.shown.len(), 1);
    }

    #[test]
    fn a_result_always_fits() {
        let outcome = OperationOutcome {
            message: "ü\"".repeat(5000),
            unmatched: vec!["a/ns/p".repeat(60); 500],
            policies: vec!["a/ns/p".repeat(60); 500],
            shown: vec!["a/ns/p".repeat(60); 500],
            faults: vec![
                PolicyFault {
                    source: "a/ns/p".repeat(60),
                    text: "ü\"".repeat(500),
                };
                20
            ],
            left: vec![Baseline::default(); 2000],
            matched: vec![
                Baseline {
                    key: "a/ns/p".repeat(60),
                    left: 1
                };
                200
            ],
            ..failed("Reason", String::new())
        };
        assert!(serde_json::to_string(&bounded(outcome)).unwrap().len() <= 4096);
    }
}
