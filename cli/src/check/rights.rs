//! Whether the operator has the rights that it is shipped with: the rules of its ServiceAccount as the API server evaluates
//! them, against `deploy/spoke/20-rbac.yaml`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::finding::{Fact, Finding, judge};
use super::kube::{OPERATOR, words};
use crate::kubectl::{Kubectl, parse};
use crate::objects::text;

/// What is shipped.
const SHIPPED: &str = include_str!("../../../deploy/spoke/20-rbac.yaml");
/// Rights that an installation may leave out; what does not work then says so itself.
const OPTIONAL: [&str; 1] = ["pods/exec"];
/// Most names of an answer.
const NAMED: usize = 5;

/// (group, resource, verb)
type Right = (String, String, String);

static NEEDED: LazyLock<BTreeSet<Right>> = LazyLock::new(|| {
    let documents = SHIPPED.split("\n---\n");
    let objects = documents.filter_map(|document| serde_saphyr::from_str::<Value>(document).ok());
    objects.flat_map(|object| rights(object.get("rules"))).collect()
});

/// Rules of the operator's ServiceAccount in its own namespace. The person needs the right to impersonate it.
pub async fn rules(kubectl: &Kubectl, system: &str) -> Fact<Value> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": system },
    });
    let account = format!("--as=system:serviceaccount:{system}:{OPERATOR}");
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let arguments = [&account, "create", "--raw", path, "-f", "-"];
    let answer = kubectl
        .give(&arguments, &review.to_string())
        .await
        .map_err(words)?;
    parse(&answer).map_err(words)
}

/// Each right of rules.
fn rights(rules: Option<&Value>) -> Vec<Right> {
    let words = |rule: &Value, key: &str| -> Vec<String> {
        let list = rule.get(key).and_then(Value::as_array);
        let words = list.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    };
    let mut rights = Vec::new();
    for rule in rules.and_then(Value::as_array).into_iter().flatten() {
        // A rule about some objects only is none about all.
        if rule
            .get("resourceNames")
            .and_then(Value::as_array)
            .is_some_and(|names| !names.is_empty())
        {
            continue;
        }
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    rights.push((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

/// Which of the rights that are shipped are missing.
#[must_use]
pub fn operator(rules: &Fact<Value>) -> Finding {
    const ID: &str = "operator-rights";
    let hint = "ask somebody who may impersonate the operator's ServiceAccount (kubectl --as)";
    judge(ID, rules, hint, |review| {
        let has: Vec<Right> = rights(review.pointer("/status/resourceRules"));
        let matches = |given: &str, wanted: &str| given == "*" || given == wanted;
        let granted = |(group, resource, verb): &&Right| {
            has.iter()
                .any(|(g, r, v)| matches(g, group) && matches(r, resource) && matches(v, verb))
        };
        let missing: Vec<&Right> = NEEDED.iter().filter(|right| !granted(right)).collect();
        let (optional, needed): (Vec<&Right>, Vec<&Right>) = missing
            .into_iter()
            .partition(|right| OPTIONAL.contains(&right.1.as_str()));
        let name = |(group, resource, verb): &&Right| match group.as_str() {
            "" => format!("{verb} {resource}"),
            group => format!("{verb} {resource}.{group}"),
        };
        let names: Vec<String> = needed.iter().take(NAMED).map(name).collect();
        let more = needed.len().saturating_sub(names.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let fix = "kubectl apply -f deploy/spoke/20-rbac.yaml";
        match (needed.is_empty(), optional.is_empty()) {
            // An authorizer that cannot list its rules may grant what is missing here.
            (false, _) if review.pointer("/status/incomplete") == Some(&Value::Bool(true)) => {
                Finding::unknown(
                    ID,
                    format!(
                        "the API server does not know all rules ({}); not seen: {}{more}",
                        text(review, "/status/evaluationError"),
                        names.join(", ")
                    ),
                    fix,
                )
            }
            (false, _) => Finding::bad(
                ID,
                format!("the operator may not {}{more}", names.join(", ")),
                fix,
            ),
            (true, false) => Finding::note(
                ID,
                "the operator has the rights that it needs, but for hooks and stdin.exec",
                "the rule on pods/exec of 20-rbac.yaml, if backups use them",
            ),
            (true, true) => Finding::good(ID, format!("the operator has all {} rights", NEEDED.len())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;

    fn review(rules: Value) -> Fact<Value> {
        Ok(json!({ "status": { "resourceRules": rules, "incomplete": false } }))
    }

    fn shipped() -> Vec<Value> {
        NEEDED
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect()
    }

    #[test]
    fn what_is_shipped_is_enough_and_each_right_of_it_is_missed() {
        assert!(NEEDED.len() > 50, "{}", NEEDED.len());
        assert_eq!(operator(&review(json!(shipped()))).outcome, Outcome::Good);
        let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        assert_eq!(operator(&review(all)).outcome, Outcome::Good);
        for (left_out, right) in NEEDED.iter().enumerate() {
            let mut rules = shipped();
            rules.remove(left_out);
            let expected = if right.1 == "pods/exec" {
                Outcome::Note
            } else {
                Outcome::Bad
            };
            assert_eq!(operator(&review(json!(rules))).outcome, expected, "{right:?}");
        }
    }

    #[test]
    fn a_rule_about_one_object_is_none_about_all_and_no_answer_is_unknown() {
        let mut rules = shipped();
        rules
            .iter_mut()
            .for_each(|rule| rule["resourceNames"] = json!(["one"]));
        assert_eq!(operator(&review(json!(rules))).outcome, Outcome::Bad);
        let found = operator(&Err("forbidden".to_owned()));
        assert_eq!(found.outcome, Outcome::Unknown);
        assert!(!found.hint.is_empty());
        let part = Ok(json!({ "status": { "resourceRules": [], "incomplete": true } }));
        assert_eq!(operator(&part).outcome, Outcome::Unknown);
    }
}
