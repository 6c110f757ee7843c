//! What becomes of a join token that somebody shows. Pure.

use sha2::{Digest as _, Sha256};

use crate::Millis;
use crate::store::StoredToken;

/// Beginning of every token, so that scanners for secrets find one in the wrong place.
const PREFIX: &str = "fleet-join-";
/// Longest life of a token, shortest, and that of one that says nothing.
const LONGEST: Millis = 24 * 3_600_000;
const SHORTEST: Millis = 60_000;
const USUAL: Millis = 3_600_000;

/// A token out of random bytes.
#[must_use]
pub fn spell(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", hex::encode(random))
}

/// What is kept of a token.
#[must_use]
pub fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.trim().as_bytes()).to_vec()
}

/// How long a token lives; `None` for a wish that is too long or too short. 0 is no wish.
#[must_use]
pub fn life(wish: u64) -> Option<Millis> {
    match Millis::try_from(wish).ok()? {
        0 => Some(USUAL),
        wish => (SHORTEST..=LONGEST).contains(&wish).then_some(wish),
    }
}

/// Who shows a token.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Name that the spoke is configured with.
    pub cluster: &'a str,
    /// SHA-256 of the public key that is to be certified.
    pub public_key: &'a [u8],
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The token is good: a certificate may be issued.
    Issue,
    /// The answer was lost: it is given again.
    Again(Vec<u8>),
}

/// Why not. The text is what the spoke logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the hub does not know this join token; make one with `fleet clusters join {0}`")]
    Unknown(String),
    #[error("the join token of {0} has expired; make another one with `fleet clusters join {0}`")]
    Expired(String),
    #[error(
        "the join token of {0} was used already, with another key. If that was not this cluster, somebody else has joined as \
         {0}: `fleet clusters ban {0}`. Otherwise make another one with `fleet clusters join {0}`"
    )]
    Used(String),
    #[error("the join token is for cluster {0}, and this spoke is configured as {1:?} (FLEET_CLUSTER)")]
    Name(String, String),
}

/// What becomes of a token that is shown.
///
/// # Errors
/// Why it is refused.
pub fn decide(token: Option<&StoredToken>, shown: Shown<'_>, now: Millis) -> Result<Step, Refusal> {
    let Some(token) = token else {
        return Err(Refusal::Unknown(shown.cluster.to_owned()));
    };
    let cluster = || token.cluster.clone();
    if now >= token.expires {
        return Err(Refusal::Expired(cluster()));
    }
    if shown.cluster != token.cluster {
        return Err(Refusal::Name(cluster(), shown.cluster.to_owned()));
    }
    match &token.used {
        None => Ok(Step::Issue),
        Some((key, answer)) if key == shown.public_key => Ok(Step::Again(answer.clone())),
        Some(_) => Err(Refusal::Used(cluster())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(used: Option<u8>) -> StoredToken {
        StoredToken {
            cluster: "a".to_owned(),
            created: 0,
            expires: 100,
            used: used.map(|key| (vec![key; 32], vec![key])),
            ..StoredToken::default()
        }
    }

    fn show(token: Option<&StoredToken>, cluster: &str, key: u8, now: Millis) -> Result<Step, Refusal> {
        let public_key = vec![key; 32];
        let shown = Shown {
            cluster,
            public_key: &public_key,
        };
        decide(token, shown, now)
    }

    #[test]
    fn a_token_is_good_for_one_key_of_one_name_until_it_expires() {
        assert_eq!(show(Some(&token(None)), "a", 1, 99), Ok(Step::Issue));
        assert_eq!(show(Some(&token(Some(1))), "a", 1, 99), Ok(Step::Again(vec![1])));
        assert_eq!(
            show(Some(&token(Some(1))), "a", 2, 99),
            Err(Refusal::Used("a".into()))
        );
        assert_eq!(
            show(Some(&token(Some(1))), "a", 1, 100),
            Err(Refusal::Expired("a".into()))
        );
        assert_eq!(
            show(Some(&token(None)), "a", 1, 100),
            Err(Refusal::Expired("a".into()))
        );
        assert_eq!(show(None, "a", 1, 0), Err(Refusal::Unknown("a".into())));
        let other = show(Some(&token(None)), "b", 1, 0).unwrap_err().to_string();
        assert!(other.contains("cluster a") && other.contains("\"b\""), "{other}");
    }

    #[test]
    fn a_life_has_bounds() {
        assert_eq!(life(0), Some(3_600_000));
        assert_eq!(life(60_000), Some(60_000));
        for wish in [59_999, 86_400_001, u64::MAX] {
            assert_eq!(life(wish), None);
        }
    }

    #[test]
    fn a_token_is_kept_as_its_hash() {
        let token = spell(&[0xab; 32]);
        assert_eq!(token.len(), PREFIX.len() + 64);
        assert_eq!(
            hash(&token),
            hash(&format!(" {token}\n")),
            "files end with a line feed"
        );
        assert_ne!(hash(&token), hash(&spell(&[0xac; 32])));
    }
}
