//! What a spoke may do: one pure question, asked wherever a message could change what belongs to others.

use crate::bindings::{Bindings, State};
use crate::copies::is_key;

/// Sender of a message.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// Name in the certificate.
    pub cluster: &'a str,
    /// No newer session of the cluster has taken over.
    pub current: bool,
}

/// What a message would do. Ids are restic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// Waits for the maintenance lock, or holds it.
    Lease(&'a str),
    /// Gives back what was granted: also allowed after a person has ended the binding.
    End(&'a str),
    /// Rules for a run, figures, and running backups that a drain waits for.
    Share(&'a str),
    /// Answers the hub's question whether the cluster can open the repository.
    Proof(&'a str),
    /// Creates a repository somewhere; its id is not known yet.
    Creation,
    /// Reports which repositories it uses.
    Report,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a newer session of the cluster has taken over")]
    Superseded,
    #[error("the repository id is not 64 hex digits")]
    Id,
    #[error("the cluster has not reported that it uses this repository")]
    NotBound,
    #[error(
        "other clusters use the repository, and this one has not shown that it can open it; an operator can accept it with `fleet repos accept`"
    )]
    Pending,
    #[error("an operator has ended the cluster's binding to the repository")]
    Ended,
    #[error("the message is malformed")]
    Malformed,
    #[error("the proof does not answer a question of this session")]
    Proof,
    #[error("the token was never granted")]
    Token,
    #[error("the cluster has too many {0}")]
    TooMany(&'static str),
    #[error("a restore of the hub's store was announced before in this run of the hub")]
    Restore,
}

impl Refusal {
    /// Closed set of metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Superseded => "superseded",
            Refusal::Id => "id",
            Refusal::NotBound => "not_bound",
            Refusal::Pending => "pending",
            Refusal::Ended => "ended",
            Refusal::Malformed => "malformed",
            Refusal::Proof => "proof",
            Refusal::Token => "token",
            Refusal::TooMany(_) => "too_many",
            Refusal::Restore => "restore",
        }
    }
}

/// Whether a message is allowed.
///
/// # Errors
/// Why they do not.
pub fn authorize(speaker: Speaker<'_>, claim: Claim<'_>, bindings: &Bindings) -> Result<(), Refusal> {
    if !speaker.current {
        return Err(Refusal::Superseded);
    }
    let (Claim::Lease(id) | Claim::End(id) | Claim::Share(id) | Claim::Proof(id)) = claim else {
        return Ok(());
    };
    if !is_key(id) {
        return Err(Refusal::Id);
    }
    let binding = bindings.get(speaker.cluster, id).ok_or(Refusal::NotBound)?;
    match (binding.state, claim) {
        (State::Bound, _) | (State::Pending, Claim::Proof(_)) | (State::Ended, Claim::End(_)) => Ok(()),
        (State::Pending, _) => Err(Refusal::Pending),
        (State::Ended, _) => Err(Refusal::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn the_whole_table() {
        let mut bindings = Bindings::default();
        for cluster in ["bound", "pending", "ended"] {
            bindings.put(bindings.reported(&cluster.into(), ID, 0).unwrap().unwrap());
        }
        bindings.put(bindings.decided("ended", ID, false, "ann", 0).unwrap().0);
        let claims = [
            Claim::Lease(ID),
            Claim::End(ID),
            Claim::Share(ID),
            Claim::Proof(ID),
        ];
        let ask = |cluster, current| {
            claims.map(|claim| authorize(Speaker { cluster, current }, claim, &bindings).err())
        };
        let (pending, ended) = (Some(Refusal::Pending), Some(Refusal::Ended));
        assert_eq!(ask("bound", true), [None; 4]);
        assert_eq!(ask("pending", true), [pending, pending, pending, None]);
        assert_eq!(ask("ended", true), [ended, None, ended, ended]);
        assert_eq!(ask("nobody", true), [Some(Refusal::NotBound); 4]);
        assert_eq!(ask("bound", false), [Some(Refusal::Superseded); 4]);
        for id in ["", "A", &"A".repeat(64)] {
            let speaker = Speaker {
                cluster: "bound",
                current: true,
            };
            assert_eq!(authorize(speaker, Claim::Lease(id), &bindings), Err(Refusal::Id));
        }
    }
}
