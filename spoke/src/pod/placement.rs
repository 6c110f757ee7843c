//! Where a pod has to run to share a volume with the pods that use it. Pure.
//!
//! Kubernetes takes a volume with access mode ReadWriteOnce to one node, and its scheduler does not look for it there. So
//! the operator writes the node into the CronJob, and writes it anew when the application moves: a run is then right also
//! while the operator is away, with what it saw last. Affinity to the application's pods would not do: it selects by
//! labels and not by claims, a required one lets nothing run while the application is stopped, and a preferred one loses
//! against other scores.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration,
};

/// Nodes on which a volume is in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// One of these; anywhere if there is none.
    pub nodes: Vec<String>,
    /// What the pods there tolerate: their nodes may be closed for others.
    pub tolerations: Vec<Toleration>,
}

impl Placement {
    /// Puts a pod there, beside what it asks for itself.
    pub fn apply(&self, pod: &mut PodSpec) {
        if self.nodes.is_empty() {
            return;
        }
        let affinity = pod.affinity.get_or_insert_default();
        require(affinity, &self.nodes);
        let tolerations = pod.tolerations.get_or_insert_default();
        for toleration in &self.tolerations {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if tolerations.is_empty() {
            pod.tolerations = None;
        }
    }
}

/// Terms are alternatives: each that is there is required together with each node.
fn require(affinity: &mut Affinity, nodes: &[String]) {
    let on = |node: &String| NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.clone()]),
    };
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required = node_affinity
        .required_during_scheduling_ignored_during_execution
        .take();
    // A term without anything matches no node.
    let mut terms = required
        .map(|selector| selector.node_selector_terms)
        .unwrap_or_default();
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    let both = |term: &NodeSelectorTerm, node: &String| {
        let mut term = term.clone();
        term.match_fields.get_or_insert_default().push(on(node));
        term
    };
    let pairs = terms
        .iter()
        .flat_map(|term| nodes.iter().map(move |node| (term, node)));
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: pairs.map(|(term, node)| both(term, node)).collect(),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn placed(pod: Value, nodes: &[&str]) -> Value {
        let mut pod: PodSpec = serde_json::from_value(pod).unwrap();
        let placement = Placement {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            tolerations: vec![Toleration {
                key: Some("dedicated".to_owned()),
                ..Toleration::default()
            }],
        };
        placement.apply(&mut pod);
        serde_json::to_value(pod).unwrap()
    }

    const TERMS: &str =
        "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

    #[test]
    fn a_pod_goes_to_the_node_and_tolerates_what_is_tolerated_there() {
        let pod = placed(json!({ "containers": [] }), &["n1"]);
        let on = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }]);
        assert_eq!(pod.pointer(TERMS), Some(&on));
        assert_eq!(pod["tolerations"], json!([{ "key": "dedicated" }]));
        let free = placed(json!({ "containers": [] }), &[]);
        assert!(free["affinity"].is_null() && free["tolerations"].is_null());
    }

    #[test]
    fn what_a_person_requires_is_required_on_each_of_the_nodes() {
        let zone = |zone: &str| json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] });
        let own = json!({ "containers": [], "tolerations": [{ "key": "dedicated" }], "affinity": { "podAntiAffinity": {},
            "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [zone("a"), zone("b")] } } } });
        let pod = placed(own, &["n1", "n2"]);
        let terms = pod.pointer(TERMS).and_then(Value::as_array).unwrap();
        assert_eq!(terms.len(), 4);
        assert!(
            terms
                .iter()
                .all(|term| term["matchExpressions"][0]["key"] == "zone" && term["matchFields"].is_array())
        );
        assert!(pod["affinity"]["podAntiAffinity"].is_object());
        assert_eq!(pod["tolerations"].as_array().unwrap().len(), 1, "once");
    }
}
