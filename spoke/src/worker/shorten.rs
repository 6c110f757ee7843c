//! An outcome as it fits into a termination message, which holds 4096 bytes in all. Pure.

use proto::plan::cut;
use proto::v1::OperationOutcome;

/// Longest text in a message.
const TEXT_MAX: usize = 1500;
/// Longest entry of a list in it.
const ENTRY_MAX: usize = 120;
/// Longest message as JSON, in bytes.
const MESSAGE_MAX: usize = 4000;
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
            return one;
        }
        last = one;
    }
    last
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
    outcome.shown.truncate(most);
    if !outcome.left.is_empty() {
        cut(&mut outcome.left, 3 * most);
    }
    // The first one is that of the Job's own policy.
    outcome.matched.truncate(most.max(1));
    outcome
}

#[cfg(test)]
mod tests {
    use proto::v1::{Baseline, PolicyFault};

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
