//! A plan as manifests and sentences. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::plan::Plan;
use crate::arguments::Tool;
use crate::objects::{at, text};
use crate::run::yaml;

/// The manifests. Of a Secret only where its values come from: `--apply` makes it.
#[must_use]
pub fn manifests(plan: &Plan) -> String {
    let mut documents = Vec::new();
    for secret in &plan.secrets {
        let mut comment = format!(
            "# Secret {}/{} is made by --apply of:\n",
            secret.namespace, secret.name
        );
        for (name, source) in &secret.entries {
            let _ = writeln!(comment, "#   {name}: {}", source.describe());
        }
        documents.push(comment);
    }
    documents.extend(plan.objects.iter().map(yaml));
    let documents: Vec<&str> = documents.iter().map(|text| text.trim_end()).collect();
    match documents.as_slice() {
        [] => String::new(),
        documents => documents.join("\n---\n") + "\n",
    }
}

/// Kind, namespace and name.
#[must_use]
pub fn name(object: &Value) -> String {
    let (namespace, name) = at(object);
    format!("{} {namespace}/{name}", text(object, "/kind"))
}

/// What a person has to know, by what it is about.
fn notes(plan: &Plan) -> String {
    let mut about: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for note in &plan.notes {
        about.entry(&note.about).or_default().push(&note.text);
    }
    let mut text = String::new();
    for (about, notes) in about {
        let _ = writeln!(text, "{about}:");
        for note in notes {
            let _ = writeln!(text, "  - {note}");
        }
    }
    text.trim_end()
        .chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect()
}

/// The notes, what was done or would be, and what comes next.
#[must_use]
pub fn next(plan: &Plan, applied: bool) -> String {
    let tool = plan.tool.as_str();
    let changes = plan.objects.len() + plan.secrets.len() + plan.patches.len();
    let mut text = notes(plan);
    if !text.is_empty() {
        text.push('\n');
    }
    if !applied {
        for patch in &plan.patches {
            let _ = writeln!(text, "would {}", patch.what);
        }
    }
    if changes == 0 {
        text += "nothing is to be written";
    } else if !applied {
        let _ = write!(
            text,
            "nothing was written; to write it: fleet migrate {tool} --apply"
        );
    } else if plan.tool == Tool::Original {
        text += "next: docs/upgrade.md, from \"Replace\" on; when our operator runs: fleet migrate finish original";
    } else {
        let _ = write!(
            text,
            "{tool} goes on as before; look at ours with kubectl get resticfleet -A, try one with the annotation \
             backup.resticbackup.io/run, then: fleet migrate finish {tool}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migrate::plan::Place;
    use crate::migrate::secret::{Source, reference};

    #[test]
    fn no_value_of_a_secret_is_printed() {
        let mut plan = Plan::new(Tool::Cron, false);
        let entries = [
            ("RESTIC_PASSWORD".to_owned(), Source::literal("right horse")),
            ("AWS_ACCESS_KEY_ID".to_owned(), Source::whole("s3", "user")),
        ];
        let place = Place {
            namespace: "shop".to_owned(),
            name: "nas".to_owned(),
            source: String::new(),
        };
        let secret = reference(&mut plan, &place, entries.into());
        plan.repository(&place, "s3:x/y", &secret, json!({}));
        plan.note("CronJob shop/x", "a\u{1b}[2J");
        let text = manifests(&plan) + &next(&plan, false);
        assert!(
            !text.contains("right horse") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(
            text.contains("#   AWS_ACCESS_KEY_ID: key user of Secret s3"),
            "{text}"
        );
        let documents: Vec<Value> = manifests(&plan)
            .split("\n---\n")
            .filter(|text| !text.lines().all(|line| line.starts_with('#')))
            .map(|text| serde_saphyr::from_str(text).unwrap_or_default())
            .collect();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0]["spec"]["initialize"], "Never");
    }
}
