#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const SECRET: &str = "hunter2-s3cret-0815";

/// An object that has this text wherever a schema takes text.
fn filled(schema: &Value, text: &str) -> Value {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let fields = properties
            .iter()
            .map(|(name, of)| (name.clone(), filled(of, text)));
        return Value::Object(fields.collect());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => json!([filled(schema.get("items").unwrap_or(&Value::Null), text)]),
        Some("integer" | "number") => json!(7),
        Some("boolean") => json!(true),
        Some("object") => json!({ "name": text, "anything": { "name": text } }),
        _ => json!(text),
    }
}

/// Paths at which a text is found.
fn paths(value: &Value, wanted: &str, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, of)| paths(of, wanted, &format!("{at}.{name}"), found)),
        Value::Array(items) => items
            .iter()
            .for_each(|of| paths(of, wanted, &format!("{at}[]"), found)),
        Value::String(text) if text.contains(wanted) => found.push(at.to_owned()),
        _ => {}
    }
}

fn schemas() -> Vec<(String, Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|of| of.unwrap().path())
        .collect();
    files.sort();
    let of = |file: &std::path::PathBuf| -> (String, Value) {
        let text = std::fs::read_to_string(file).unwrap();
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        (
            kind,
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(),
        )
    };
    files.iter().map(of).collect()
}

/// A field that could hold a secret is never kept, whatever its name: these are all that are, of all kinds.
#[test]
fn only_fields_of_the_list_leave_and_none_of_them_takes_a_command_an_address_or_a_value() {
    let kinds = schemas();
    assert_eq!(kinds.len(), 4);
    let mut all = Vec::new();
    for (kind, schema) in &kinds {
        let object = object(&filled(schema, SECRET));
        let mut found = Vec::new();
        paths(&object, SECRET, kind, &mut found);
        all.extend(
            found
                .into_iter()
                .filter(|path| !path.ends_with(".spec.repositoryURL")),
        );
    }
    assert!(all.len() > 50, "{all:?}");
    let forbidden = [
        "command",
        "args",
        "env[].value",
        "url",
        "webhook",
        "header",
        "backendOptions",
        "annotations",
        "labels",
        "body",
        "token",
        "password",
        "extraArgs",
    ];
    for path in &all {
        let leaf = path.rsplit('.').next().unwrap().to_lowercase();
        assert!(
            !forbidden.iter().any(|of| leaf.contains(&of.to_lowercase())),
            "{path}"
        );
        for map in MAPS {
            assert!(!path.contains(&format!(".{map}.")), "{path}");
        }
    }
}

#[test]
fn what_people_put_into_specs_and_pods_does_not_leave() {
    let given = json!({
        "kind": "ResticBackup",
        "metadata": {
            "name": "orders",
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": SECRET, "name": SECRET },
            "labels": { "name": SECRET }, "managedFields": [{ "name": SECRET }],
        },
        "spec": {
            "repositoryURL": format!("rest:https://user:{SECRET}@nas/r"), "schedule": "@daily",
            "hooks": { "preBackup": { "exec": { "command": ["mysqldump", format!("-p{SECRET}")] } } },
            "backendOptions": { "name": SECRET, "pin": 12345 },
            "containers": [{ "name": "x", "image": "i", "args": [SECRET], "env": [{ "name": "PASSWORD", "value": SECRET }] }],
            "restic": { "extraArgs": [format!("--password={SECRET}")] },
        },
        "status": { "conditions": [{ "type": "Ready", "message": format!("cannot open https://u:{SECRET}@nas/: no") }] },
    });
    let object = object(&given);
    let text = object.to_string();
    assert!(!text.contains(SECRET) && !text.contains("12345"), "{object:#}");
    assert_eq!(object["spec"]["repositoryURL"], "rest:https://nas/r");
    assert_eq!(object["spec"]["containers"][0]["env"][0]["name"], "PASSWORD");
    assert_eq!(object["spec"]["schedule"], "@daily");
    assert_eq!(
        object["spec"]["hooks"]["preBackup"]["exec"]["command"][0],
        LEFT_OUT
    );
    assert!(object["metadata"].get("managedFields").is_none());
}

#[test]
fn what_looks_like_a_secret_leaves_no_text() {
    assert_eq!(PATTERNS.len(), 9, "each pattern compiles");
    for line in [
        format!("open rest:https://fleet:{SECRET}@nas:8000/r: refused"),
        format!("RESTIC_PASSWORD={SECRET} restic snapshots"),
        format!("{{\"password\":\"{SECRET}\",\"level\":\"info\"}}"),
        format!("{{\"clientSecret\": \"{SECRET}\"}}"),
        format!("authorization: Bearer {SECRET}"),
        format!("AWS_SECRET_ACCESS_KEY: {SECRET}"),
        format!("run with --login-token {SECRET}"),
        format!("fleet-session-{SECRET}"),
        format!("-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----"),
        format!("-----BEGIN PRIVATE KEY-----\n{SECRET} cut off"),
    ] {
        let shown = text(&line);
        assert!(!shown.contains(SECRET), "{shown}");
    }
    for harmless in [
        "WrongPassword: the password of Secret nas does not open it",
        "CredentialsNotFound: Secret \"nas\" does not exist",
        r#"{"message":"granted","token":8812,"lease":"held"}"#,
    ] {
        assert_eq!(text(harmless), harmless);
    }
    let harmless = "the repository at s3:https://nas/bucket cannot be opened: 3 of 6 snapshots; user@host";
    assert_eq!(text(harmless), harmless);
    assert!(!text("key AKIAIOSFODNN7EXAMPLE refused").contains("AKIA"));
    let token = text("sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl");
    assert_eq!(token, "sent (token)");
}
