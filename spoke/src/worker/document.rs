//! The plan as a line of JSON, bounded. Pure.

use proto::plan::{PlanDocument, PlanLine, Removal};

/// Longest line, as long as the ids fit: the hub keeps one per run.
const MAX: usize = 2 << 20;
/// Groups of a document that was too long.
const GROUPS: usize = 500;

/// The line. Ids, policies and counts are always complete; what describes snapshots is left out, from the newest
/// removals on, where it is longer than [`MAX`].
#[must_use]
pub fn line(plan: &PlanDocument) -> String {
    let whole = text(plan);
    if whole.len() <= MAX {
        return whole;
    }
    let mut short = plan.clone();
    short.shortened = true;
    short.groups.truncate(GROUPS);
    let over = text(&short).len().saturating_sub(MAX);
    let over = strip(&mut short.previewed, over);
    let over = strip(&mut short.remove, over);
    if over > 0 {
        short.groups.clear();
    }
    text(&short)
}

/// Leaves descriptions out until `over` bytes are saved, and returns what is still missing.
fn strip(removals: &mut [Removal], over: usize) -> usize {
    let mut saved = 0;
    for removal in removals.iter_mut().rev() {
        if saved >= over {
            break;
        }
        let id_only = Removal {
            id: std::mem::take(&mut removal.id),
            ..Removal::default()
        };
        saved += size(removal).saturating_sub(size(&Removal::default()));
        *removal = id_only;
    }
    over.saturating_sub(saved)
}

/// Bytes of what describes a removal.
fn size(removal: &Removal) -> usize {
    serde_json::to_vec(removal).map_or(0, |text| text.len())
}

fn text(plan: &PlanDocument) -> String {
    let line = PlanLine { plan: plan.clone() };
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_plan_keeps_all_ids_and_describes_the_oldest() {
        let removal = |n: usize| Removal {
            id: format!("{n:064x}"),
            time: "2026-11-23T01:00:00Z".to_owned(),
            tags: vec!["t".repeat(250)],
            by: vec!["a/ns/p".to_owned()],
            ..Removal::default()
        };
        let plan = |count: usize| PlanDocument {
            hash: "h".to_owned(),
            remove: (0..count).map(removal).collect(),
            previewed: (count..2 * count).map(removal).collect(),
            ..PlanDocument::default()
        };
        let whole: PlanLine = serde_json::from_str(&line(&plan(10))).unwrap();
        assert_eq!(whole.plan, plan(10));
        let text = line(&plan(7_000));
        assert!(
            text.len() <= MAX && text.starts_with("{\"plan\":"),
            "{}",
            text.len()
        );
        let short = serde_json::from_str::<PlanLine>(&text).unwrap().plan;
        assert!(short.shortened && short.remove[0] == removal(0));
        assert!(short.previewed[6_999].tags.is_empty());
        let ids = |list: &[Removal]| list.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&short.remove), ids(&plan(7_000).remove));
        assert_eq!(ids(&short.previewed), ids(&plan(7_000).previewed));
    }
}
