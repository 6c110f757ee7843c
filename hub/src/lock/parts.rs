//! The plan of a run arrives in parts. One plan at a time per cluster, bounded. Pure.

use proto::v1::{LeaseRelease, PlanPart};

use crate::authorize::Refusal;

/// Longest plan.
pub const LONGEST: usize = 8 << 20;

/// A plan that is arriving.
#[derive(Debug, Default)]
pub struct Parts {
    operation: String,
    restic_id: String,
    token: u64,
    data: Vec<u8>,
}

impl Parts {
    /// Takes a part. The first byte begins a new plan.
    ///
    /// # Errors
    /// When it does not continue the plan that is arriving, or the plan is too long. What came before is dropped.
    pub fn take(&mut self, part: PlanPart) -> Result<(), Refusal> {
        if part.offset == 0 {
            *self = Parts {
                operation: part.operation.clone(),
                restic_id: part.restic_id.clone(),
                token: part.token,
                data: Vec::new(),
            };
        }
        let same =
            (&part.operation, &part.restic_id, part.token) == (&self.operation, &self.restic_id, self.token);
        if !same || part.offset != self.data.len() as u64 {
            *self = Parts::default();
            return Err(Refusal::Malformed);
        }
        if self.data.len() + part.data.len() > LONGEST {
            *self = Parts::default();
            return Err(Refusal::TooMany("bytes in a plan"));
        }
        self.data.extend(part.data);
        Ok(())
    }

    /// The plan that belongs to a release, if all of it has arrived.
    pub fn of(&mut self, release: &LeaseRelease) -> Option<Vec<u8>> {
        let parts = std::mem::take(self);
        let same = (&release.operation, &release.restic_id, release.token)
            == (&parts.operation, &parts.restic_id, parts.token);
        let whole = same && release.plan_bytes > 0 && release.plan_bytes == parts.data.len() as u64;
        whole.then_some(parts.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(token: u64, offset: u64, data: &[u8]) -> PlanPart {
        PlanPart {
            operation: "job".to_owned(),
            restic_id: "r".to_owned(),
            token,
            offset,
            data: data.to_vec(),
        }
    }

    fn release(token: u64, plan_bytes: u64) -> LeaseRelease {
        LeaseRelease {
            operation: "job".to_owned(),
            restic_id: "r".to_owned(),
            token,
            plan_bytes,
            ..LeaseRelease::default()
        }
    }

    #[test]
    fn parts_make_a_plan_and_said_again_the_same_one() {
        let mut parts = Parts::default();
        parts.take(part(3, 0, b"lost")).unwrap();
        parts.take(part(3, 0, b"ab")).unwrap();
        parts.take(part(3, 2, b"c")).unwrap();
        assert_eq!(parts.of(&release(3, 3)), Some(b"abc".to_vec()));
        assert_eq!(parts.of(&release(3, 3)), None, "taken");
    }

    #[test]
    fn a_part_that_does_not_continue_is_refused_and_no_half_plan_is_kept() {
        for wrong in [part(3, 1, b"x"), part(4, 2, b"x")] {
            let mut parts = Parts::default();
            parts.take(part(3, 0, b"ab")).unwrap();
            assert_eq!(parts.take(wrong), Err(Refusal::Malformed));
            assert_eq!(parts.of(&release(3, 2)), None);
        }
        let mut parts = Parts::default();
        parts.take(part(3, 0, b"ab")).unwrap();
        assert_eq!(parts.of(&release(3, 3)), None, "the rest is missing");
    }

    #[test]
    fn a_plan_without_end_is_cut_off() {
        let mut parts = Parts::default();
        let chunk = vec![0; 1 << 20];
        let taken = (0..20u64).take_while(|n| parts.take(part(3, n << 20, &chunk)).is_ok());
        assert_eq!(taken.count(), LONGEST >> 20);
    }
}
