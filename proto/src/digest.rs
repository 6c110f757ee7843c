//! Order-free digest of an inventory: both ends add up a hash per object, so that one heartbeat of 32 bytes shows
//! whether hub and spoke hold the same objects, whatever the order in which they learnt of them.

use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::v1::RetentionRun;

/// Hash of one object's state.
pub type ObjectHash = [u8; 32];

/// Hash of an `ObjectUpdate`: of its uid and of the bytes of the state as the spoke made them. A reader of another version
/// must not hash a message that it decoded and encoded again, because that drops fields which it does not know.
#[must_use]
pub fn object_hash(uid: &str, state: &[u8]) -> ObjectHash {
    let mut hash = Sha256::new();
    hash.update((uid.len() as u64).to_le_bytes());
    hash.update(uid);
    hash.update(state);
    hash.finalize().into()
}

/// Hash of a run as the hub composed it, for LeaseRenew.run_hash.
#[must_use]
pub fn run_hash(run: &RetentionRun) -> Vec<u8> {
    Sha256::digest(run.encode_to_vec()).to_vec()
}

/// Sum of object hashes modulo 2^256. Adding and removing are inverse, so it is kept up to date per change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes an object's hash in.
    pub fn add(&mut self, hash: &ObjectHash) {
        let mut carry = 0u16;
        for (sum, byte) in self.0.iter_mut().zip(hash) {
            let total = u16::from(*sum) + u16::from(*byte) + carry;
            [*sum, _] = total.to_le_bytes();
            carry = total >> 8;
        }
    }

    /// Takes an object's hash out again.
    pub fn remove(&mut self, hash: &ObjectHash) {
        let mut borrow = 0i16;
        for (sum, byte) in self.0.iter_mut().zip(hash) {
            let total = i16::from(*sum) - i16::from(*byte) - borrow;
            borrow = i16::from(total < 0);
            [*sum, _] = total.to_le_bytes();
        }
    }

    /// The 32 bytes that a heartbeat carries.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes_addition() {
        let (a, b) = (object_hash("a", b"state"), object_hash("b", b"state"));
        assert_ne!(a, b, "equal states of two objects count twice");
        let (mut left, mut right) = (Digest::default(), Digest::default());
        left.add(&a);
        left.add(&b);
        right.add(&b);
        right.add(&a);
        assert_eq!(left, right);
        left.remove(&b);
        left.remove(&a);
        assert_eq!(left, Digest::default());
    }

    #[test]
    fn carries_run_through_all_bytes() {
        let mut sum = Digest::default();
        sum.add(&[0xff; 32]);
        sum.add(&[1; 32]);
        sum.remove(&[1; 32]);
        assert_eq!(sum, Digest([0xff; 32]));
    }

    #[test]
    fn another_status_is_another_digest() {
        assert_ne!(object_hash("a", b"one"), object_hash("a", b"two"));
        assert_ne!(object_hash("a", b"bc"), object_hash("ab", b"c"));
    }
}
