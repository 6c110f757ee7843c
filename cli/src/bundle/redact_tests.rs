#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proto::backend::Backend;
use serde_json::json;
use spoke::secrets::{
    FILES_VARIABLE, NEW_PASSWORD_KEY, PASSWORD_VARIABLE, PRIVATE_FILES_VARIABLE, REPOSITORY_VARIABLE,
};

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
    assert_eq!(COMPILED.len(), PATTERNS.len(), "each pattern compiles");
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
        // A user, a token or nothing before a password, which may hold any sign.
        format!("open rest:https://fleet:p@{SECRET}@nas:8000/r: refused"),
        format!("open rest:https://fleet:p/{SECRET}@nas:8000/r: refused"),
        format!("clone https://{SECRET}@git.example.org/x"),
        format!("{{\"url\":\"https://u:a\\\"{SECRET}@nas/\"}}"),
        format!("open sftp:fleet:{SECRET}@nas:/srv: refused"),
        format!("open sftp:fleet:a@{SECRET}@nas:/srv: refused"),
        format!("GET https://x.blob.core.windows.net/c?sv=2024-11-04&sig={SECRET}&se=1"),
        // A quote in a value, and JSON in a text of JSON.
        format!("{{\"password\":\"a\\\"{SECRET}\",\"level\":\"info\"}}"),
        format!("{{\"msg\":\"read {{\\\"password\\\":\\\"{SECRET}\\\"}}\"}}"),
        format!("{{\"msg\":\"read {{\\\"password\\\":\\\"a\\\\\\\" {SECRET}\\\"}}\"}}"),
        format!("password=\"a long {SECRET}"),
        format!("password='a long {SECRET}'"),
        // Signs at which a value does not end.
        format!("RESTIC_PASSWORD=a,{SECRET} restic"),
        format!("RESTIC_PASSWORD=a;b}}{SECRET} restic"),
        format!("RESTIC_PASSWORD=a\"{SECRET} restic"),
        format!("rclone:sftp,user=x,pass={SECRET}:dir"),
        format!("restic --new-password='{SECRET} of words'"),
    ] {
        let shown = text(&line);
        assert!(!shown.contains(SECRET), "{shown}");
    }
    for harmless in [
        r#"{"msg":"done","pass":3,"key":"nas","secret":"nas"}"#,
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

/// Variables that hold no secret, of those that a Secret may bring into a pod.
const HARMLESS: [&str; 50] = [
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AZURE_ACCOUNT_NAME",
    "AZURE_CLIENT_ID",
    "AZURE_ENDPOINT_SUFFIX",
    "AZURE_TENANT_ID",
    "B2_ACCOUNT_ID",
    "FLEET_CREDENTIAL_FILES",
    "FLEET_PRIVATE_FILES",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_PROJECT_ID",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_AUTH_URL",
    "OS_PROJECT_DOMAIN_ID",
    "OS_PROJECT_DOMAIN_NAME",
    "OS_PROJECT_NAME",
    "OS_REGION_NAME",
    "OS_STORAGE_URL",
    "OS_TENANT_ID",
    "OS_TENANT_NAME",
    "OS_TRUST_ID",
    "OS_USERNAME",
    "OS_USER_DOMAIN_ID",
    "OS_USER_DOMAIN_NAME",
    "OS_USER_ID",
    "RCLONE_BWLIMIT",
    "RCLONE_CONFIG",
    "RESTIC_AWS_ASSUME_ROLE_ARN",
    "RESTIC_AWS_ASSUME_ROLE_EXTERNAL_ID",
    "RESTIC_AWS_ASSUME_ROLE_POLICY",
    "RESTIC_AWS_ASSUME_ROLE_REGION",
    "RESTIC_AWS_ASSUME_ROLE_SESSION_NAME",
    "RESTIC_AWS_ASSUME_ROLE_STS_ENDPOINT",
    "RESTIC_CACERT",
    "RESTIC_COMPRESSION",
    "RESTIC_KEY_HINT",
    "RESTIC_PACK_SIZE",
    "RESTIC_READ_CONCURRENCY",
    "RESTIC_REPOSITORY",
    "RESTIC_REST_USERNAME",
    "RESTIC_TLS_CLIENT_CERT",
    "SSH_KNOWN_HOSTS",
    "STORAGE_EMULATOR_HOST",
    "ST_AUTH",
    "ST_USER",
    "SWIFT_DEFAULT_CONTAINER_POLICY",
];

/// Each variable of each back end, and each key that becomes a file: a new one is left out too, or is named above.
#[test]
fn no_variable_of_any_storage_shows_its_secret() {
    let of = |backend: Backend| {
        let files = backend.files().iter().map(|file| file.key);
        backend.variables().chain(files)
    };
    let others = [
        PASSWORD_VARIABLE,
        NEW_PASSWORD_KEY,
        REPOSITORY_VARIABLE,
        FILES_VARIABLE,
        PRIVATE_FILES_VARIABLE,
    ];
    let names: BTreeSet<&str> = Backend::ALL.into_iter().flat_map(of).chain(others).collect();
    assert!(names.contains("AZURE_ACCOUNT_SAS") && names.contains("SSH_PRIVATE_KEY"));
    for harmless in HARMLESS {
        assert!(names.contains(harmless), "{harmless} is none any more");
    }
    for name in names.iter().filter(|name| !HARMLESS.contains(name)) {
        for line in [
            format!("{name}={SECRET}"),
            format!("started with {name}=a,{SECRET} restic snapshots"),
            format!("{name}: '{SECRET}'"),
            format!("{{\"{name}\":\"a\\\"{SECRET}\"}}"),
            format!("{{\"msg\":\"env {{\\\"{name}\\\":\\\"{SECRET}\\\"}}\"}}"),
        ] {
            assert!(!text(&line).contains(SECRET), "{line}: {}", text(&line));
        }
    }
}
