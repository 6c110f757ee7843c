//! Which clusters are in the fleet: joining, bans, and the authority that certifies them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{
    BanClusterRequest, CreateJoinTokenRequest, CreateJoinTokenResponse, RotateAuthorityRequest,
    RotateAuthorityResponse, RotationStep, UnbanClusterRequest,
};
use serde_json::json;

use crate::arguments::{Join, JoinFormat, Rotate, RotateStep};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::output::{note, print};
use crate::rebuild::to_keep;
use crate::run::yaml;
use crate::text::until;

/// Ports of the hub unless it was told otherwise.
const LINK: u16 = 8443;
const ENROL: u16 = 8445;

/// Prints what makes a cluster join.
pub async fn join(client: &mut Client, join: &Join) -> Result<u8, Failure> {
    let valid = join
        .valid
        .map_or(0, |valid| u64::try_from(valid.as_millis()).unwrap_or(u64::MAX));
    let request = CreateJoinTokenRequest {
        cluster: join.cluster.clone(),
        valid_ms: valid,
    };
    let mut clusters = client.clusters.clone();
    let answer = client.answer(clusters.create_join_token(request)).await?;
    let host = client.host();
    let url = |given: &Option<String>, told: &str, port: u16| match given {
        Some(given) => given.clone(),
        None if told.is_empty() => format!("https://{host}:{port}"),
        None => told.to_owned(),
    };
    let link = address(url(&join.link_url, &answer.link_url, LINK))?;
    let enrol = address(url(&join.enrol_url, &answer.enrol_url, ENROL))?;
    if !answer.known_uid.is_empty() {
        let (cluster, uid) = (&join.cluster, cleaned(&answer.known_uid));
        note(&format!(
            "{cluster} has reported before as the cluster with uid {uid}; another one is refused until `fleet clusters accept \
             {cluster} --uid UID`"
        ));
        if let Some(advice) = to_keep(client, cluster, None).await {
            note(&advice);
        }
    }
    let manifest = manifest(&join.cluster, &answer, &link, &enrol);
    print(&match join.output {
        JoinFormat::Yaml => manifest,
        JoinFormat::Command => format!("kubectl apply -f - <<'EOF'\n{manifest}EOF\n"),
    });
    note(&format!(
        "run it in cluster {}; the token is good once, {}",
        join.cluster,
        until(answer.expires.as_ref(), Timestamp::now())
    ));
    Ok(0)
}

fn address(url: String) -> Result<String, Failure> {
    let plain = url.chars().all(|c| c.is_ascii_graphic() && !"'\"\\".contains(c));
    match url.starts_with("https://") && plain {
        true => Ok(url),
        false => Err(Failure::Address(url)),
    }
}

/// The namespace as the spoke's own manifests have it, and the Secret.
fn manifest(cluster: &str, answer: &CreateJoinTokenResponse, link: &str, enrol: &str) -> String {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": "restic-fleet-system", "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        },
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": "fleet-spoke-join", "namespace": "restic-fleet-system" },
        "stringData": {
            "cluster": cluster, "hub": link, "enrol": enrol, "pin": cleaned(&answer.pin), "token": cleaned(&answer.token),
        },
    });
    format!("{}---\n{}", yaml(&namespace), yaml(&secret))
}

/// Bans.
pub async fn ban(client: &mut Client, cluster: &str, reason: &str) -> Result<u8, Failure> {
    let request = BanClusterRequest {
        cluster: cluster.to_owned(),
        reason: reason.to_owned(),
    };
    let mut clusters = client.clusters.clone();
    let answer = client.answer(clusters.ban_cluster(request)).await?;
    note(match answer.was_connected {
        true => "banned: its session was ended, and its locks go through the pause after a silent holder",
        false => "banned: it was not connected, and cannot connect any more",
    });
    Ok(0)
}

/// Lifts a ban.
pub async fn unban(client: &mut Client, cluster: &str, rejoin: bool) -> Result<u8, Failure> {
    let request = UnbanClusterRequest {
        cluster: cluster.to_owned(),
        rejoin,
    };
    let mut clusters = client.clusters.clone();
    client.answer(clusters.unban_cluster(request)).await?;
    note(&match rejoin {
        true => format!("lifted; it has to join again: fleet clusters join {cluster}"),
        false => "lifted; it connects again within a minute".to_owned(),
    });
    Ok(0)
}

/// A step of a rotation, or where it is.
pub async fn rotate(client: &mut Client, rotate: &Rotate) -> Result<u8, Failure> {
    let step = match rotate.step {
        None => RotationStep::Unspecified,
        Some(RotateStep::Begin) => RotationStep::Begin,
        Some(RotateStep::Activate) => RotationStep::Activate,
        Some(RotateStep::Retire) => RotationStep::Retire,
    };
    let request = RotateAuthorityRequest {
        step: step.into(),
        force: rotate.force,
    };
    let mut clusters = client.clusters.clone();
    let answer = client.answer(clusters.rotate_authority(request)).await?;
    print(&rotation(&answer));
    let behind = !answer.behind.is_empty() || !answer.people.is_empty();
    let waits = rotate.step.is_none() && behind;
    Ok(if waits { code::FINDING } else { 0 })
}

fn rotation(answer: &RotateAuthorityResponse) -> String {
    let next = match answer.state.as_str() {
        "announced" => "next: fleet clusters rotate-authority activate",
        "activated" => "next: fleet clusters rotate-authority retire",
        _ => "no rotation is under way; to begin one: fleet clusters rotate-authority begin",
    };
    let mut text = format!("authority: {}\n", cleaned(&answer.state));
    for (n, key) in answer.authorities.iter().enumerate() {
        let role = if n == 0 { "signs" } else { "is trusted" };
        text.push_str(&format!("  {} {role}\n", cleaned(key)));
    }
    if !answer.behind.is_empty() {
        text.push_str(&format!(
            "not ready for the next step: {}\n",
            cleaned(&answer.behind.join(", "))
        ));
    }
    if !answer.people.is_empty() {
        let names = answer.people.iter().map(|person| person.name.as_str());
        let names: BTreeSet<&str> = names.collect();
        text.push_str(&format!(
            "people whose CLI has not fetched the next authority, which it does with their next command: {}\n",
            cleaned(&names.into_iter().collect::<Vec<_>>().join(", "))
        ));
    }
    format!("{text}{next}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_holds_all_that_a_cluster_needs() {
        let answer = CreateJoinTokenResponse {
            token: "fleet-join-0".to_owned(),
            pin: "ab".to_owned(),
            ..CreateJoinTokenResponse::default()
        };
        let text = manifest("a", &answer, "https://h:1", "https://h:2");
        let documents: Vec<&str> = text.split("---\n").collect();
        assert_eq!(documents.len(), 2);
        for needed in [
            "kind: Secret",
            "cluster: a",
            "hub: ",
            "https://h:1",
            "https://h:2",
            "fleet-join-0",
            "pin: ab",
        ] {
            assert!(documents[1].contains(needed), "{text}");
        }
        let shipped = include_str!("../../deploy/spoke/10-namespace.yaml");
        assert!(shipped.contains("name: restic-fleet-system") && shipped.contains("enforce: restricted"));
    }

    #[test]
    fn an_address_breaks_out_of_no_command() {
        assert!(address("https://hub.example.org:8443".to_owned()).is_ok());
        for bad in ["http://h", "https://h\nEOF", "https://h'", "https://h \""] {
            assert!(address(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
