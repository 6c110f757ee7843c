//! Decisions about a cluster as a whole.

use std::fmt::Write as _;

use proto::v1::{AcceptClusterRequest, ForgetClusterRequest, ForgetClusterResponse};

use crate::arguments::{ClustersCommand, HubArguments};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::membership;
use crate::output::{note, print};
use crate::rebuild::to_keep;
use crate::text::counted;

/// Carries a decision out.
pub async fn decide(hub: &HubArguments, command: &ClustersCommand) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    match command {
        ClustersCommand::Join(join) => membership::join(&mut client, join).await,
        ClustersCommand::Ban { cluster, reason } => membership::ban(&mut client, cluster, reason).await,
        ClustersCommand::Unban { cluster, rejoin } => membership::unban(&mut client, cluster, *rejoin).await,
        ClustersCommand::RotateAuthority(rotate) => membership::rotate(&mut client, rotate).await,
        ClustersCommand::Rebuild(rebuild) => crate::rebuild::rebuild(&mut client, rebuild).await,
        ClustersCommand::Accept { cluster, uid } => {
            let request = AcceptClusterRequest {
                cluster: cluster.clone(),
                cluster_uid: uid.clone(),
            };
            if let Some(advice) = to_keep(&mut client, cluster, Some(uid)).await {
                note(&advice);
            }
            client.accept_cluster(request).await?;
            note(&format!(
                "{cluster} is the cluster {uid} from now on; it reports everything when it connects"
            ));
            Ok(0)
        }
        ClustersCommand::Forget { cluster, yes } => {
            let request = |confirm| ForgetClusterRequest {
                cluster: cluster.clone(),
                confirm,
            };
            let shown = client.forget_cluster(request(false)).await?;
            print(&consequences(cluster, &shown));
            if !yes {
                note(&format!(
                    "nothing was removed; to remove it: fleet clusters forget {cluster} --yes"
                ));
                return Ok(code::FINDING);
            }
            client.forget_cluster(request(true)).await?;
            note(&format!("{cluster} was removed"));
            Ok(0)
        }
    }
}

/// What is no longer protected.
fn consequences(cluster: &str, answer: &ForgetClusterResponse) -> String {
    let mut text = format!(
        "The hub forgets {cluster}: {}, {}, {}.\n",
        counted(answer.repositories, "repository", "repositories"),
        counted(answer.backups, "backup", "backups"),
        counted(
            answer.policies.len() as u64,
            "retention policy",
            "retention policies"
        )
    );
    let _ = writeln!(
        text,
        "Its snapshots stay in their repositories. Policies of other clusters remove them only if a selector names them."
    );
    if answer.backups > 0 {
        let _ = writeln!(
            text,
            "What it can be made again of is removed too: first keep what `fleet clusters rebuild {cluster}` prints."
        );
    }
    if !answer.policies.is_empty() {
        let _ = writeln!(text, "What these policies keep is no longer kept by them:");
    }
    for policy in &answer.policies {
        let _ = writeln!(text, "  {cluster}/{policy}");
    }
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_protected_is_named() {
        let answer = ForgetClusterResponse {
            policies: vec!["shop/nightly\u{1b}[2J".to_owned()],
            repositories: 2,
            backups: 7,
            ..ForgetClusterResponse::default()
        };
        let text = consequences("old", &answer);
        assert!(
            text.contains("2 repositories, 7 backups, 1 retention policy"),
            "{text}"
        );
        assert!(text.contains("  old/shop/nightly"), "{text}");
        assert!(text.contains("fleet clusters rebuild old"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
