//! The size of a new claim. Pure.

use crds::conditions::reasons;
use crds::restore::NewPvc;

use super::Wait;
use super::select::Chosen;

const GI: u64 = 1 << 30;

/// The size that is asked for, or that of the snapshot with a fifth more for what the file system needs, in whole Gi.
///
/// # Errors
/// The size of the snapshot is not known.
pub(super) fn size(new: &NewPvc, chosen: &Chosen) -> Result<String, Wait> {
    match (&new.size, chosen.bytes) {
        (Some(size), _) => Ok(size.clone()),
        (None, Some(bytes)) => {
            let needed = bytes.saturating_add(bytes.div_ceil(5));
            Ok(format!("{}Gi", needed.div_ceil(GI).max(1)))
        }
        (None, None) => Err(Wait {
            reason: reasons::INVALID_SPEC,
            message: format!(
                "spec.target.newPVC.size is needed: snapshot {} was made by a restic before 0.17, which did not note its size",
                chosen.id.get(..8).unwrap_or(&chosen.id)
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: Option<&str>, bytes: Option<u64>) -> Result<String, &'static str> {
        let new = NewPvc {
            size: given.map(str::to_owned),
            ..NewPvc::default()
        };
        let chosen = Chosen {
            id: "ab".repeat(32),
            folder: "",
            files: None,
            bytes,
        };
        size(&new, &chosen).map_err(|wait| wait.reason)
    }

    #[test]
    fn a_claim_has_room_for_its_snapshot() {
        assert_eq!(of(Some("5Mi"), Some(9 * GI)), Ok("5Mi".to_owned()));
        for (bytes, size) in [
            (0, "1Gi"),
            (GI, "2Gi"),
            (5 * GI, "6Gi"),
            (5 * GI + 1, "7Gi"),
            (10 * GI, "12Gi"),
        ] {
            assert_eq!(of(None, Some(bytes)), Ok(size.to_owned()), "{bytes}");
        }
        assert_eq!(of(None, None), Err("InvalidSpec"), "unknown is not small");
    }
}
