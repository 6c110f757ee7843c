use std::os::unix::fs::PermissionsExt as _;

use super::*;

const NOW: Millis = 1_795_000_000_000;
const DAY: Millis = 86_400_000;

fn open(dir: &Path) -> Authority {
    Authority::open_or_create(dir, "fleet", DAY, Begin::default(), NOW).unwrap()
}

fn request() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::default();
    parameters.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn an_authority_is_made_once_and_only_the_hub_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("authority");
    assert!(
        Authority::open(&folder, "fleet", DAY).is_err(),
        "nothing is made by a reader"
    );
    let joined = Begin {
        joined: true,
        from: None,
    };
    let refused = Authority::open_or_create(&folder, "fleet", DAY, joined, NOW)
        .err()
        .unwrap();
    let text = format!("{refused:#}");
    assert!(text.contains("--new-authority") && !folder.exists(), "{text}");
    let first = open(&folder);
    assert!(Authority::open_or_create(&folder, "fleet", DAY, joined, NOW).is_ok());
    assert_eq!(first.active(), open(&folder).active());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("active.pem")), 0o600);
}

#[test]
fn a_given_authority_signs_and_a_foreign_key_is_refused() {
    let (one, two) = (
        issue::new_authority("x", NOW).unwrap(),
        issue::new_authority("x", NOW).unwrap(),
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("active.pem");
    // As `cat ca.key ca.crt` and the other way round make it.
    std::fs::write(&file, format!("{}{}", one.1, one.0)).unwrap();
    assert!(open(dir.path()).spoke("a", &request(), NOW).is_ok());
    std::fs::write(&file, format!("{}{}", one.0, two.1)).unwrap();
    let refused = Authority::open_or_create(dir.path(), "fleet", DAY, Begin::default(), NOW)
        .err()
        .unwrap();
    assert!(
        format!("{refused:#}").contains("do not belong together"),
        "{refused:#}"
    );
}

#[test]
fn a_rotation_announces_before_it_signs_and_survives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let first = authority.active();
    let mut changes = authority.changes();
    assert!(authority.activate().is_err() && authority.retire().is_err());
    authority.begin(NOW).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(authority.begin(NOW).is_err(), "one at a time");
    let authority = open(dir.path());
    assert_eq!(
        (authority.rotation(), authority.active()),
        (Rotation::Announced, first)
    );
    assert_eq!(authority.spoke("a", &request(), NOW).unwrap().authority, first);
    assert_eq!(authority.bundle().len(), 2);
    authority.activate().unwrap();
    let authority = open(dir.path());
    assert_eq!(authority.rotation(), Rotation::Activated);
    assert_ne!(authority.active(), first);
    assert_eq!(authority.bundle().len(), 2, "the old one is still trusted");
    authority.retire().unwrap();
    let authority = open(dir.path());
    assert_eq!(authority.rotation(), Rotation::Steady);
    let keys: Vec<KeyHash> = authority
        .bundle()
        .iter()
        .map(|der| read(der).unwrap().key)
        .collect();
    assert_eq!(keys, [authority.active()]);
}

#[test]
fn a_second_activation_leaves_the_old_authority_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    first.begin(NOW).unwrap();
    // Both believe that the next one was announced.
    let second = open(dir.path());
    first.activate().unwrap();
    let old = std::fs::read(dir.path().join("old.crt")).unwrap();
    assert!(second.activate().is_err());
    assert_eq!(std::fs::read(dir.path().join("old.crt")).unwrap(), old);
    assert_eq!(open(dir.path()).rotation(), Rotation::Activated);
}

#[test]
fn an_activation_that_was_cut_off_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    authority.begin(NOW).unwrap();
    let active = authority.bundle()[0].clone();
    std::fs::write(dir.path().join("old.crt"), certificate_pem(&active)).unwrap();
    let authority = open(dir.path());
    assert_eq!(authority.rotation(), Rotation::Announced);
    assert_eq!(authority.bundle().len(), 2);
}

#[test]
fn a_folder_is_begun_with_a_given_authority_once() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("given.pem"), dir.path().join("authority"));
    let begin = Begin {
        joined: false,
        from: Some(&file),
    };
    let open = || Authority::open_or_create(&folder, "fleet", DAY, begin, NOW);
    std::fs::write(&file, "nothing").unwrap();
    let refused = format!("{:#}", open().err().unwrap());
    assert!(
        refused.contains("--authority-from") && !folder.exists(),
        "{refused}"
    );
    let (certificate, key) = issue::new_authority("x", NOW).unwrap();
    std::fs::write(&file, format!("{certificate}{key}")).unwrap();
    let given = Signer::parse(&format!("{certificate}{key}")).unwrap().key;
    assert_eq!(open().unwrap().active(), given);
    // It was rotated since: the file is no longer what counts.
    open().unwrap().begin(NOW).unwrap();
    open().unwrap().activate().unwrap();
    assert_ne!(open().unwrap().active(), given);
}
