//! A linter of what the charts render: pods, rights, and whether what selects pods finds some. Needs Helm, which
//! `tests/charts.sh` builds. What an API server and Pod Security say of the same is in `e2e/charts`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use serde_json::Value;
use tests::tools::Workspace;

/// What the charts render with values that make every part of them.
fn rendered(chart: &str, set: &str) -> Vec<Value> {
    let workspace = Workspace::here();
    let program = workspace.program("helm");
    let folder = workspace.root.join("deploy/charts").join(chart);
    let mut command = Command::new(&program);
    command.args([
        "template",
        "x",
        &folder.to_string_lossy(),
        "--namespace",
        "restic-fleet-system",
    ]);
    if !set.is_empty() {
        command.args(["--set", set]);
    }
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; tests/charts.sh builds it", program.display()));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

fn each(check: impl Fn(&str, &[Value])) {
    let some = "watchNamespaces={shop},metrics.serviceMonitor.enabled=true,metrics.rules.enabled=true,\
                networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b";
    let all = "address=hub.example.org,metrics.serviceMonitor.enabled=true,metrics.rules.enabled=true,\
               networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b";
    for (chart, set) in [("spoke", ""), ("spoke", some), ("hub", ""), ("hub", all)] {
        let documents = rendered(chart, set);
        assert!(documents.len() > 5);
        check(chart, &documents);
    }
}

fn of<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
#[ignore = "needs Helm: make charts-test"]
fn containers_have_no_right_that_they_do_not_need() {
    each(|chart, documents| {
        let pods: Vec<&Value> = of(documents, "Deployment")
            .map(|d| &d["spec"]["template"]["spec"])
            .collect();
        assert_eq!(pods.len(), 1, "{chart}");
        for pod in pods {
            for host in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[host].is_null(), "{chart}: {host}");
            }
            assert!(
                list(&pod["volumes"])
                    .iter()
                    .all(|volume| volume["hostPath"].is_null())
            );
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(pod["enableServiceLinks"], false);
            for container in list(&pod["containers"]) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
                assert!(context["privileged"].is_null());
                // A limit of CPU would only slow a turn down; memory is what one pod can take from others.
                for (part, name) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
                    assert!(
                        !container["resources"][part][name].is_null(),
                        "{chart}: {part} {name}"
                    );
                }
                for probe in ["livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    assert!(
                        list(&container["ports"]).iter().any(|p| p["name"] == *port),
                        "{chart}: {probe}"
                    );
                }
                let image = container["image"].as_str().unwrap();
                assert!(
                    !image.ends_with(":latest") && image.rsplit('/').next().unwrap().contains([':', '@'])
                );
                for variable in list(&container["env"]) {
                    let name = variable["name"].as_str().unwrap();
                    let secret = ["PASSWORD", "SECRET", "TOKEN", "KEY"]
                        .iter()
                        .any(|word| name.contains(word));
                    assert!(
                        !secret || variable["value"].is_null(),
                        "{chart}: {name} has its value in the manifest"
                    );
                }
            }
        }
    });
}

#[test]
#[ignore = "needs Helm: make charts-test"]
fn rights_have_no_wildcard_and_names_that_exist() {
    each(|chart, documents| {
        for kind in ["ClusterRole", "Role"] {
            for role in of(documents, kind) {
                for rule in list(&role["rules"]) {
                    assert!(!rule.to_string().contains("\"*\""), "{chart}: {role}");
                    let resources = list(&rule["resources"]);
                    assert!(
                        !resources.iter().any(|r| r == "nodes" || r == "clusterroles"),
                        "{chart}: {rule}"
                    );
                }
            }
        }
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            for binding in of(documents, kind) {
                let (wanted, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
                let same = |role: &&Value| {
                    role["metadata"]["name"] == *name
                        && (*wanted == "ClusterRole"
                            || role["metadata"]["namespace"] == binding["metadata"]["namespace"])
                };
                assert!(
                    of(documents, wanted.as_str().unwrap()).any(|role| same(&role)),
                    "{chart}: {binding}"
                );
                let account = &binding["subjects"][0]["name"];
                assert!(of(documents, "ServiceAccount").any(|a| a["metadata"]["name"] == *account));
            }
        }
        for deployment in of(documents, "Deployment") {
            let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
            assert!(
                of(documents, "ServiceAccount").any(|a| a["metadata"]["name"] == *account),
                "{chart}"
            );
        }
    });
}

/// Whether a pod has all labels of a selector.
fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

#[test]
#[ignore = "needs Helm: make charts-test"]
fn what_selects_pods_finds_them_and_their_ports() {
    each(|chart, documents| {
        let deployment = of(documents, "Deployment").next().unwrap();
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert!(matches(&deployment["spec"]["selector"]["matchLabels"], labels));
        let ports = list(&template["spec"]["containers"][0]["ports"]);
        let named = |port: &Value| ports.iter().any(|p| p["name"] == *port);
        for service in of(documents, "Service") {
            assert!(
                matches(&service["spec"]["selector"], labels),
                "{chart}: {service}"
            );
            assert!(
                list(&service["spec"]["ports"])
                    .iter()
                    .all(|port| named(&port["targetPort"]))
            );
        }
        let mut guarded = Vec::new();
        for policy in of(documents, "NetworkPolicy") {
            assert!(
                matches(&policy["spec"]["podSelector"]["matchLabels"], labels),
                "{chart}: {policy}"
            );
            for rule in list(&policy["spec"]["ingress"]) {
                for port in list(&rule["ports"]) {
                    assert!(named(&port["port"]), "{chart}: {port}");
                    guarded.push(port["port"].clone());
                }
            }
        }
        // Who is let in nowhere is let in to nothing: each listener but that of metrics is named.
        let open = ports.iter().filter(|p| p["name"] != "admin").map(|p| &p["name"]);
        assert!(
            open.clone().all(|name| guarded.contains(name)),
            "{chart}: {guarded:?}"
        );
        let many = deployment["spec"]["replicas"].as_u64().unwrap() > 1;
        assert_eq!(
            of(documents, "PodDisruptionBudget").count(),
            usize::from(many),
            "{chart}"
        );
        for budget in of(documents, "PodDisruptionBudget") {
            assert!(matches(&budget["spec"]["selector"]["matchLabels"], labels));
        }
        if many {
            assert!(
                !list(&template["spec"]["topologySpreadConstraints"]).is_empty(),
                "{chart}"
            );
        }
        for monitor in of(documents, "ServiceMonitor") {
            let wanted = &monitor["spec"]["selector"]["matchLabels"];
            let found: Vec<_> = of(documents, "Service")
                .filter(|s| matches(wanted, &s["metadata"]["labels"]))
                .collect();
            assert_eq!(found.len(), 1, "{chart}: {monitor}");
            let port = &monitor["spec"]["endpoints"][0]["port"];
            assert!(
                list(&found[0]["spec"]["ports"])
                    .iter()
                    .any(|p| p["name"] == *port)
            );
        }
        for rule in of(documents, "PrometheusRule") {
            assert!(!list(&rule["spec"]["groups"]).is_empty());
        }
    });
}

#[test]
#[ignore = "needs Helm: make charts-test"]
fn the_rights_of_the_chart_are_those_of_the_list() {
    let rules = |documents: &[Value], kind: &str, name: &str| -> Vec<String> {
        let role = of(documents, kind)
            .find(|role| role["metadata"]["name"] == name)
            .unwrap();
        let mut rules: Vec<String> = list(&role["rules"]).iter().map(Value::to_string).collect();
        rules.sort();
        rules
    };
    let plain = std::fs::read_to_string(Workspace::here().root.join("deploy/spoke/20-rbac.yaml")).unwrap();
    let plain: Vec<Value> = serde_saphyr::from_multiple(&plain).unwrap();
    let chart = rendered("spoke", "");
    assert_eq!(
        rules(&chart, "ClusterRole", "fleet-spoke"),
        rules(&plain, "ClusterRole", "fleet-spoke")
    );
    assert_eq!(
        rules(&chart, "Role", "fleet-spoke-leader"),
        rules(&plain, "Role", "fleet-spoke-leader")
    );
    let some = rendered("spoke", "watchNamespaces={shop}");
    let mut parts = rules(&some, "ClusterRole", "fleet-spoke");
    parts.extend(rules(&some, "Role", "fleet-spoke"));
    parts.sort();
    assert_eq!(
        parts,
        rules(&plain, "ClusterRole", "fleet-spoke"),
        "the same, in two places"
    );
    let shipped = crds::schema::definitions().len();
    assert_eq!(of(&chart, "CustomResourceDefinition").count(), shipped);
    for (_, definition) in crds::schema::definitions() {
        let of_chart = of(&chart, "CustomResourceDefinition")
            .find(|rendered| rendered["metadata"]["name"] == definition["metadata"]["name"])
            .unwrap();
        assert_eq!(of_chart["spec"], definition["spec"], "texts with {{{{ too");
    }
}
