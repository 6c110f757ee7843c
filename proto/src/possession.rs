//! Proof that a cluster can open a repository, without giving the hub anything that would open it.
//!
//! Who can open a repository has its master key. An Ed25519 key is derived from that, and signs what the hub asks. The hub
//! keeps the public half that the first cluster showed: every other cluster that can open the repository has the same.
//! The master key does not change when passwords are added or removed, or when the repository is upgraded; so a cluster
//! whose password was removed still proves. A repository made by `restic copy` has another one.

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::plan::is_id;
use crate::v1::PossessionProof;

/// What the derived key is for. Never changed: the public halves that hubs keep depend on it.
const PURPOSE: &[u8] = b"restic-fleet possession ed25519 v1";
/// What is signed begins with this, so that a signature means nothing anywhere else.
const DOMAIN: &[u8] = b"restic-fleet possession proof v1";
/// Length of the hub's question.
pub const NONCE: usize = 32;

/// The decoded fields of `restic cat masterkey`.
pub struct MasterKey {
    /// `mac.k`
    pub mac_k: Vec<u8>,
    /// `mac.r`
    pub mac_r: Vec<u8>,
    /// `encrypt`
    pub encrypt: Vec<u8>,
}

/// Why there is no proof, or why one does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not 64 hex digits, not 32 bytes, or a master key of other lengths than restic's.
    #[error("the question or the answer is malformed")]
    Malformed,
    /// It answers another question.
    #[error("the proof answers another question")]
    Nonce,
    /// The signature does not fit.
    #[error("the signature does not fit")]
    Signature,
}

struct Seed;

impl KeyType for Seed {
    fn len(&self) -> usize {
        32
    }
}

fn key_pair(master: &MasterKey, restic_id: &str) -> Result<Ed25519KeyPair, Invalid> {
    let MasterKey {
        mac_k,
        mac_r,
        encrypt,
    } = master;
    // restic: 16 bytes each for the MAC, 32 for the cipher. Fixed lengths make the concatenation unambiguous.
    if (mac_k.len(), mac_r.len(), encrypt.len()) != (16, 16, 32) {
        return Err(Invalid::Malformed);
    }
    let material = [mac_k.as_slice(), mac_r, encrypt].concat();
    let secret = Salt::new(HKDF_SHA256, restic_id.as_bytes()).extract(&material);
    let mut seed = [0; 32];
    let purpose = [PURPOSE];
    let derived = secret.expand(&purpose, Seed).and_then(|okm| okm.fill(&mut seed));
    derived.map_err(|_| Invalid::Malformed)?;
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| Invalid::Malformed)
}

/// What is signed: the domain, the cluster's name with its length, the repository's id, the nonce.
fn message(cluster: &str, restic_id: &str, nonce: &[u8]) -> Vec<u8> {
    let length = u32::try_from(cluster.len()).unwrap_or(u32::MAX).to_be_bytes();
    [DOMAIN, &length, cluster.as_bytes(), restic_id.as_bytes(), nonce].concat()
}

/// Answers the hub's question.
///
/// # Errors
/// When question or master key are malformed.
pub fn prove(
    master: &MasterKey,
    cluster: &str,
    restic_id: &str,
    nonce: &[u8],
) -> Result<PossessionProof, Invalid> {
    if !is_id(restic_id) || nonce.len() != NONCE {
        return Err(Invalid::Malformed);
    }
    let pair = key_pair(master, restic_id)?;
    Ok(PossessionProof {
        restic_id: restic_id.to_owned(),
        nonce: nonce.to_vec(),
        public_key: pair.public_key().as_ref().to_vec(),
        signature: pair.sign(&message(cluster, restic_id, nonce)).as_ref().to_vec(),
        error: String::new(),
    })
}

/// Whether a proof is one of this cluster for this question. Whether its public key is the repository's is another matter.
///
/// # Errors
/// Why it does not count.
pub fn verify(proof: &PossessionProof, cluster: &str, nonce: &[u8]) -> Result<(), Invalid> {
    if !is_id(&proof.restic_id) || nonce.len() != NONCE || proof.public_key.len() != 32 {
        return Err(Invalid::Malformed);
    }
    if proof.nonce != nonce {
        return Err(Invalid::Nonce);
    }
    UnparsedPublicKey::new(&ED25519, &proof.public_key)
        .verify(&message(cluster, &proof.restic_id, nonce), &proof.signature)
        .map_err(|_| Invalid::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(first: u8) -> MasterKey {
        MasterKey {
            mac_k: vec![first; 16],
            mac_r: vec![2; 16],
            encrypt: vec![3; 32],
        }
    }

    #[test]
    fn the_derived_key_never_changes() {
        let proof = prove(&master(1), "a", &"ab".repeat(32), &[7; 32]).unwrap();
        assert_eq!(hex::encode(&proof.public_key), GOLDEN);
    }

    const GOLDEN: &str = "96cb34853f68586be7d6d9fd11dec2c49474ac8e664e243aea7260ceee04f6c6";

    #[test]
    fn a_proof_is_of_one_cluster_one_repository_one_question_one_key() {
        let id = "ab".repeat(32);
        let proof = prove(&master(1), "a", &id, &[7; 32]).unwrap();
        assert_eq!(verify(&proof, "a", &[7; 32]), Ok(()));
        assert_eq!(verify(&proof, "b", &[7; 32]), Err(Invalid::Signature));
        assert_eq!(verify(&proof, "a", &[8; 32]), Err(Invalid::Nonce));
        let moved = PossessionProof {
            restic_id: "cd".repeat(32),
            ..proof.clone()
        };
        assert_eq!(verify(&moved, "a", &[7; 32]), Err(Invalid::Signature));
        let stolen = PossessionProof {
            public_key: prove(&master(9), "a", &id, &[7; 32]).unwrap().public_key,
            ..proof
        };
        assert_eq!(verify(&stolen, "a", &[7; 32]), Err(Invalid::Signature));
        let elsewhere = prove(&master(1), "a", &"cd".repeat(32), &[7; 32]).unwrap();
        assert_ne!(
            elsewhere.public_key,
            prove(&master(1), "a", &id, &[7; 32]).unwrap().public_key
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let short = MasterKey {
            mac_k: vec![1; 15],
            ..master(1)
        };
        assert!(prove(&short, "a", &"ab".repeat(32), &[7; 32]).is_err());
        assert!(prove(&master(1), "a", "short", &[7; 32]).is_err());
        assert!(prove(&master(1), "a", &"ab".repeat(32), &[7; 31]).is_err());
    }
}
