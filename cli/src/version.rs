//! `fleet version`: of this program, of the hub, and of the clusters.

use proto::v1::HealthResponse;
use serde_json::{Value, json};

use crate::arguments::{Format, HubArguments};
use crate::client::Client;
use crate::document::API_VERSION;
use crate::failure::Failure;
use crate::health;
use crate::maintenance::print;
use crate::output::note;
use crate::render::align;

/// Of this program.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

/// Carries the command out. Without a login there is no hub to ask; a hub that does not answer is an error.
pub async fn version(hub: &HubArguments, client_only: bool, output: Format) -> Result<u8, Failure> {
    let mut asked = Ok(None);
    if !client_only {
        asked = match Client::connect(hub).await {
            Ok(mut client) => client.health().await.map(Some),
            Err(Failure::NotConfigured("FLEET_HUB", _)) => {
                note("no hub is asked: there is no login (fleet login --help)");
                Ok(None)
            }
            Err(failure) => Err(failure),
        };
    }
    let (health, failure) = match asked {
        Ok(health) => (health, None),
        Err(failure) => (None, Some(failure)),
    };
    let names = std::iter::once(OWN.to_owned());
    print(output, &document(health.as_ref()), names, || {
        table(health.as_ref())
    });
    failure.map_or(Ok(0), Err)
}

/// As JSON.
#[must_use]
pub fn document(health: Option<&HealthResponse>) -> Value {
    let document = health.map(health::document);
    let of = |key: &str| document.as_ref().map_or(Value::Null, |of| of[key].clone());
    json!({ "apiVersion": API_VERSION, "kind": "Version", "fleet": OWN, "hub": of("version"), "clusters": of("versions") })
}

fn table(health: Option<&HealthResponse>) -> String {
    let mut lines = vec![vec!["fleet".to_owned(), OWN.to_owned()]];
    if let Some(health) = health {
        let hub = if health.version.is_empty() {
            "unknown"
        } else {
            &health.version
        };
        lines.push(vec!["hub".to_owned(), hub.to_owned()]);
        for of in &health.versions {
            lines.push(vec![
                "spoke".to_owned(),
                of.version.clone(),
                format!("{} clusters", of.clusters),
            ]);
        }
    }
    align(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_is_null_and_what_a_hub_does_not_say_is_unknown() {
        let of = document(None);
        assert_eq!((&of["hub"], &of["clusters"]), (&Value::Null, &Value::Null));
        assert!(table(Some(&HealthResponse::default())).contains("hub    unknown"));
    }
}
