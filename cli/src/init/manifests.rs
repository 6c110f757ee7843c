//! The manifests of a hub: those of `deploy/hub`, with what was chosen. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use crate::arguments::{Exposure, Init};
use crate::run::yaml;

const NAMESPACE: &str = include_str!("../../../deploy/hub/10-namespace.yaml");
const HUB: &str = include_str!("../../../deploy/hub/20-hub.yaml");
/// Lines of them that are replaced.
const IMAGE: &str = "image: ghcr.io/restic-fleet/hub:dev";
const NODE_PORT: &str = "type: NodePort";

/// Namespace of the hub, its settings, and the Secret of a given authority.
pub const SYSTEM: &str = "restic-fleet-system";
pub const SETTINGS: &str = "fleet-hub-settings";
const SECRET: &str = "fleet-hub-tls";
/// Where the hub finds that Secret.
const GIVEN: &str = "/etc/fleet-hub/tls/authority.pem";

/// Ports at which the hub is reached: of spokes, of people, and of clusters that join.
const fn ports(exposure: Exposure) -> [u16; 3] {
    match exposure {
        Exposure::NodePort => [30443, 30444, 30445],
        Exposure::LoadBalancer => [8443, 8444, 8445],
    }
}

fn url(init: &Init, port: u16) -> String {
    let host = &init.address;
    // An IPv6 address.
    match host.contains(':') && !host.starts_with('[') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    }
}

/// Where people reach the hub.
#[must_use]
pub fn view_url(init: &Init) -> String {
    url(init, ports(init.service)[1])
}

/// The settings, with those that are there already.
#[must_use]
pub fn settings(init: &Init, present: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut settings = present.clone();
    let [link, _, enrol] = ports(init.service);
    settings.insert("FLEET_HUB_LINK_URL".to_owned(), url(init, link));
    settings.insert("FLEET_HUB_ENROL_URL".to_owned(), url(init, enrol));
    let names = settings.entry("FLEET_HUB_SERVER_NAME".to_owned()).or_default();
    let address = init.address.trim_matches(['[', ']']);
    if !names.split(',').any(|name| name == address) {
        let before = std::mem::take(names);
        *names = [before.as_str(), address].join(",").trim_matches(',').to_owned();
    }
    if init.authority.is_some() {
        settings.insert("FLEET_HUB_AUTHORITY_FROM".to_owned(), GIVEN.to_owned());
    }
    settings.extend(init.set.iter().cloned());
    settings
}

/// All objects, in the order in which they are applied. `authority` is a given one, PEM.
#[must_use]
pub fn all(init: &Init, settings: &BTreeMap<String, String>, authority: Option<&str>) -> String {
    let metadata = |name: &str| json!({ "name": name, "namespace": SYSTEM });
    let config =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(SETTINGS), "data": settings });
    let mut documents = vec![NAMESPACE.to_owned(), yaml(&config)];
    documents.extend(authority.map(|pem| {
        yaml(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata(SECRET),
            "stringData": { "authority.pem": pem },
        }))
    }));
    let mut hub = HUB.to_owned();
    if let Some(image) = &init.image {
        hub = hub.replace(IMAGE, &format!("image: {image}"));
    }
    if init.service == Exposure::LoadBalancer {
        hub = hub.replace(NODE_PORT, "type: LoadBalancer");
        for port in ports(Exposure::NodePort) {
            hub = hub.replace(&format!(", nodePort: {port}"), "");
        }
    }
    documents.push(hub);
    let documents = documents.iter().map(|text| text.trim_end());
    documents.collect::<Vec<_>>().join("\n---\n") + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::arguments::{Arguments, Command, HubCommand};

    fn init(more: &[&str]) -> Init {
        let arguments = [
            "fleet",
            "hub",
            "init",
            "--admin",
            "ann",
            "--address",
            "hub.example.org",
        ];
        match Arguments::parse_from([&arguments[..], more].concat()).command {
            Command::Hub(HubCommand::Init(init)) => init,
            other => panic!("{other:?}"),
        }
    }

    fn documents(text: &str) -> Vec<Value> {
        let documents = text.split("\n---\n");
        documents
            .map(|text| serde_saphyr::from_str(text).unwrap())
            .collect()
    }

    fn of<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
        documents
            .iter()
            .filter(|document| document["kind"] == kind)
            .collect()
    }

    #[test]
    fn what_was_chosen_is_in_the_manifests() {
        let none = BTreeMap::new();
        let shipped = init(&[]);
        let objects = documents(&all(&shipped, &settings(&shipped, &none), None));
        let data = &of(&objects, "ConfigMap")[0]["data"];
        assert_eq!(data["FLEET_HUB_LINK_URL"], "https://hub.example.org:30443");
        assert_eq!(data["FLEET_HUB_ENROL_URL"], "https://hub.example.org:30445");
        assert_eq!(data["FLEET_HUB_SERVER_NAME"], "hub.example.org");
        assert_eq!(view_url(&shipped), "https://hub.example.org:30444");
        assert_eq!(of(&objects, "Service")[0]["spec"]["type"], "NodePort");
        assert!(of(&objects, "Secret").is_empty());
        let kinds = objects.iter().map(|object| object["kind"].as_str().unwrap());
        assert_eq!(kinds.clone().next(), Some("Namespace"));
        assert_eq!(kinds.count(), 6);
        let chosen = init(&[
            "--service",
            "load-balancer",
            "--image",
            "registry/hub:1",
            "--authority",
            "file",
            "--set",
            "FLEET_HUB_LOG=debug",
        ]);
        let objects = documents(&all(&chosen, &settings(&chosen, &none), Some("PEM")));
        let data = &of(&objects, "ConfigMap")[0]["data"];
        assert_eq!(data["FLEET_HUB_LINK_URL"], "https://hub.example.org:8443");
        assert_eq!(data["FLEET_HUB_AUTHORITY_FROM"], GIVEN);
        assert_eq!(data["FLEET_HUB_LOG"], "debug");
        let service = &of(&objects, "Service")[0]["spec"];
        assert_eq!(service["type"], "LoadBalancer");
        let ports = service["ports"].as_array().unwrap();
        assert!(ports.iter().all(|port| port["nodePort"].is_null()));
        let pod = &of(&objects, "Deployment")[0]["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "registry/hub:1");
        assert_eq!(of(&objects, "Secret")[0]["stringData"]["authority.pem"], "PEM");
        let mounts = pod["volumes"].as_array().unwrap();
        assert!(
            mounts
                .iter()
                .any(|volume| volume["secret"]["secretName"] == SECRET)
        );
    }

    #[test]
    fn settings_of_before_stay() {
        let present = BTreeMap::from([
            ("FLEET_HUB_OIDC_ISSUER".to_owned(), "https://issuer".to_owned()),
            ("FLEET_HUB_SERVER_NAME".to_owned(), "other".to_owned()),
        ]);
        let one = init(&[]);
        let first = settings(&one, &present);
        assert_eq!(first["FLEET_HUB_OIDC_ISSUER"], "https://issuer");
        assert_eq!(first["FLEET_HUB_SERVER_NAME"], "other,hub.example.org");
        assert_eq!(settings(&one, &first), first, "again, nothing changes");
    }

    #[test]
    fn only_settings_of_the_hub_are_taken() {
        for wrong in ["PATH=/x", "FLEET_HUB_LOG", "FLEET_HUB_=x", "FLEET_HUB_a=x"] {
            let arguments = [
                "fleet",
                "hub",
                "init",
                "--admin",
                "a",
                "--address",
                "h",
                "--set",
                wrong,
            ];
            assert!(Arguments::try_parse_from(arguments).is_err(), "{wrong}");
        }
    }
}
