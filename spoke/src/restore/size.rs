//! The size of a new claim. Pure.

use crds::conditions::reasons;
use crds::restore::NewPvc;

use super::Wait;
use super::select::Chosen;

const GI: u64 = 1 << 30;

/// What a file system gives a file at a time: even the smallest file takes that much.
const BLOCK: u64 = 4096;

/// The size that is asked for, or that of the snapshot with a block for each file, and a fifth more for what the file
/// system needs, in whole Gi.
///
/// # Errors
/// The size of the snapshot is not known.
pub(super) fn size(new: &NewPvc, chosen: &Chosen) -> Result<String, Wait> {
    match (&new.size, chosen.bytes.zip(chosen.files)) {
        (Some(size), _) => Ok(size.clone()),
        (None, Some((bytes, files))) => {
            let bytes = bytes.saturating_add(files.saturating_mul(BLOCK));
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

    fn of(given: Option<&str>, bytes: Option<u64>, files: Option<u64>) -> Result<String, &'static str> {
        let new = NewPvc {
            size: given.map(str::to_owned),
            ..NewPvc::default()
        };
        let chosen = Chosen {
            id: "ab".repeat(32),
            folder: "",
            paths: vec!["/".to_owned()],
            excludes: Vec::new(),
            of_backup: false,
            files,
            bytes,
        };
        size(&new, &chosen).map_err(|wait| wait.reason)
    }

    #[test]
    fn a_claim_has_room_for_its_snapshot() {
        assert_eq!(of(Some("5Mi"), Some(9 * GI), None), Ok("5Mi".to_owned()));
        for (bytes, size) in [
            (0, "1Gi"),
            (GI, "2Gi"),
            (5 * GI, "6Gi"),
            (5 * GI + 1, "7Gi"),
            (10 * GI, "12Gi"),
        ] {
            assert_eq!(of(None, Some(bytes), Some(0)), Ok(size.to_owned()), "{bytes}");
        }
        // A million files of one byte.
        assert_eq!(of(None, Some(1 << 20), Some(1 << 20)), Ok("5Gi".to_owned()));
        for (bytes, files) in [(None, None), (None, Some(1)), (Some(1), None)] {
            assert_eq!(of(None, bytes, files), Err("InvalidSpec"), "unknown is not small");
        }
    }
}
