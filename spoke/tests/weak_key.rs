//! An empty repository, made by copying: its key is derived from its password (`p`) in no time (scrypt with N=2), so that a call
//! of restic takes 25 ms of a processor instead of 600. Each has the same id.

use std::path::Path;

/// The folder is made.
pub fn repository(at: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spoke/tests/weak-key");
    for folder in ["data", "index", "keys", "locks", "snapshots"] {
        std::fs::create_dir_all(at.join(folder)).unwrap();
    }
    std::fs::copy(fixture.join("config"), at.join("config")).unwrap();
    for key in std::fs::read_dir(fixture.join("keys")).unwrap() {
        let key = key.unwrap();
        std::fs::copy(key.path(), at.join("keys").join(key.file_name())).unwrap();
    }
}
