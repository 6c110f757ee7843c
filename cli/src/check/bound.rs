//! Which clusters take part in the repositories that the hub knows. Pure.

use super::finding::{Finding, judge};
use super::hub::{AWAY, Facts};

/// A part that is pending is bad, one that nobody knows is no good one, and one that a person ended was meant.
pub fn bound(facts: &Facts) -> Finding {
    const ID: &str = "repositories-bound";
    judge(ID, &facts.repositories, AWAY, |rows| {
        let said = |is_meant: fn(&str) -> bool, words: &str| -> Vec<String> {
            let bindings = rows
                .iter()
                .flat_map(|row| row.bindings.iter().map(move |of| (row, of)));
            bindings
                .filter(|(_, of)| is_meant(&of.binding))
                .map(|(row, of)| format!("{} {words} {}: {}", of.cluster, row.name, of.binding_reason))
                .map(|sentence| sentence.trim_end_matches([':', ' ']).to_owned())
                .collect()
        };
        let pending = said(|of| of == "pending", "takes no part yet in");
        // Empty while the hub does not know the repository, and any word that this version does not know.
        let unknown = said(
            |of| !["bound", "pending", "ended"].contains(&of),
            "is not known to take part in",
        );
        let ended = said(|of| of == "ended", "takes no part any more in");
        match () {
            () if rows.is_empty() => Finding::note(
                ID,
                "the hub knows no repository, or you see none",
                "README.md shows one",
            ),
            () if !pending.is_empty() => Finding::bad(
                ID,
                pending.join("; "),
                "it shows that it can open it by itself; or fleet repos accept REPO CLUSTER",
            ),
            () if !unknown.is_empty() => Finding::unknown(
                ID,
                unknown.join("; "),
                "fleet why repo REPO; it is known once the repository has been opened there",
            ),
            () if !ended.is_empty() => Finding::note(
                ID,
                ended.join("; "),
                "meant, if a person ended it: fleet audit; fleet repos accept REPO CLUSTER begins it again",
            ),
            () => Finding::good(
                ID,
                format!("each cluster takes part in its repositories: {}", rows.len()),
            ),
        }
    })
}
