//! Linters of what the charts render: kube-score, and our own for rights, pods, and whether what selects pods finds some; and
//! whether each refusal has its test. Needs Helm, which `tests/charts.sh` builds. What an API server and Pod Security say of the same is in `e2e/charts`.
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
            // Not as 0440, which is octal for some readers of YAML and decimal for others.
            for mode in list(&pod["volumes"])
                .iter()
                .map(|volume| &volume["secret"]["defaultMode"])
            {
                assert!(mode.is_null() || *mode == 0o440, "{chart}: {mode}");
            }
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

/// What kube-score would have and the charts do not, with the reason.
const NOT_HERE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            // A tag is a version and is not pushed again; a node that cannot reach the registry starts what it has.
            "container-image-pull-policy",
            // The root file system is read-only, and the operator's cache is bounded by its volume.
            "container-ephemeral-storage-request-and-limit",
        ],
    ),
    (
        "spoke",
        &[
            // Where it may go is of the cluster: API server, hub, repositories, receivers of notifications. In is shut.
            "pod-networkpolicy",
            // Spread constraints do it.
            "deployment-has-host-podantiaffinity",
        ],
    ),
    (
        "hub",
        &[
            // The store has one writer, so the next pod waits for the end of the one before.
            "deployment-replicas",
            "deployment-strategy",
            // Until service.type says otherwise; a bare cluster has nothing else.
            "service-type",
        ],
    ),
];

#[test]
#[ignore = "needs Helm: make charts-test"]
fn a_linter_of_others_finds_nothing() {
    let program = Workspace::here().program("kube-score");
    let score = |documents: &[Value], ignored: &[&str]| {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        let text: Vec<String> = documents.iter().map(Value::to_string).collect();
        std::fs::write(file.path(), text.join("\n---\n")).unwrap();
        let output = Command::new(&program)
            .args(["score", "--exit-one-on-warning", "--output-format", "ci"])
            .args(["--kubernetes-version", "v1.34", "--ignore-container-cpu-limit"])
            .args(["--enable-optional-test", "container-seccomp-profile"])
            .args(["--enable-optional-test", "container-ports-check"])
            .args(ignored.iter().flat_map(|name| ["--ignore-test", *name]))
            .arg(file.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<String> = said
            .lines()
            .filter(|l| !l.starts_with("[OK]") && !l.starts_with("[SKIPPED]"))
            .map(str::to_owned)
            .collect();
        assert!(
            said.contains("[OK]"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.success(), found.is_empty(), "{said}");
        found
    };
    each(|chart, documents| {
        let of = NOT_HERE.iter().filter(|(of, _)| of.is_empty() || *of == chart);
        let ignored: Vec<&str> = of.flat_map(|(_, names)| names.iter().copied()).collect();
        let found = score(documents, &ignored);
        assert!(found.is_empty(), "{chart}: {found:#?}");
    });
    // It does find what is wrong.
    let mut documents = rendered("hub", "");
    for document in &mut documents {
        if document["kind"] == "Deployment" {
            document["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] =
                true.into();
        }
    }
    let found = score(&documents, &[]);
    assert!(found.iter().any(|line| line.contains("privileged")), "{found:#?}");
}

/// What stands between the quotes that a template has after `before`, with `\"` in it.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    for part in text.split(before).skip(1) {
        let end = part
            .char_indices()
            .find(|(at, c)| *c == '"' && !part[..*at].ends_with('\\'));
        all.push(&part[..end.unwrap().0]);
    }
    all
}

#[test]
fn each_refusal_of_a_chart_has_its_test() {
    let root = Workspace::here().root;
    for (chart, least) in [("spoke", 15), ("hub", 25)] {
        let read =
            |file: &str| std::fs::read_to_string(root.join("deploy/charts").join(chart).join(file)).unwrap();
        let template = read("templates/validate.yaml");
        let tests: Value = serde_saphyr::from_str(&read("tests/refusals_test.yaml")).unwrap();
        let patterns: Vec<regex::Regex> = list(&tests["tests"])
            .iter()
            .filter_map(|test| test["asserts"][0]["failedTemplate"]["errorPattern"].as_str())
            .map(|pattern| regex::Regex::new(pattern).unwrap())
            .collect();
        let mut texts = quoted(&template, "fail \"");
        texts.extend(quoted(&template, "fail (printf \""));
        assert!(texts.len() >= least, "{chart}: {texts:?}");
        // With what may be filled in.
        let said = |pattern: &regex::Regex, text: &str| {
            let text = text.replace("\\\"", "\"");
            ["link", "token", "ingress"]
                .iter()
                .any(|word| pattern.is_match(&text.replace("%s", word)))
        };
        for text in texts {
            let own = text.starts_with("settings.%s: write the value");
            assert!(
                own || patterns.iter().any(|pattern| said(pattern, text)),
                "{chart}: no test of: {text}"
            );
        }
        // Settings that have a value of the chart.
        let given = tests.to_string();
        let own = template
            .lines()
            .filter_map(|line| line.trim().strip_prefix("\"FLEET_"));
        let own: Vec<&str> = own
            .filter_map(|line| line.split_once('"'))
            .map(|(name, _)| name)
            .collect();
        assert!(own.len() >= 10, "{chart}: {own:?}");
        for name in own {
            assert!(
                given.contains(&format!("\"FLEET_{name}\":")),
                "{chart}: no test of settings.FLEET_{name}"
            );
        }
    }
}
