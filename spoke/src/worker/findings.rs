//! What the lines of a failed `restic check` mean: damage, or a repository that could not be read. Pure. restic ends both
//! with exit code 1, and names a missing pack file in its message alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::restic::{Failure, cause_of, class_of, classify};

/// Lines of restic that are kept for people.
const WORDS_MAX: usize = 3;
/// Longest of them.
const WORD_MAX: usize = 300;
/// restic shortens ids to this length at least.
const ID_MIN: usize = 8;
/// restic's words for a file that it could not fetch. They are no evidence of damage, however many there are.
const NOT_READ: &[&str] = &[
    "download error",
    "unexpected HTTP response",
    "context canceled",
    "ReadFull(",
    "Load(",
    "List(",
    "retrying after",
];
/// restic's words for a structure that does not hold together.
const STRUCTURE: &[&str] = &[
    "failed to load snapshot",
    "not found in index",
    "not found in repository",
    "ciphertext verification failed",
    "invalid data returned",
    "is damaged",
    "size could not be found",
    "has no content",
    "does not match",
];

/// How restic's last lines begin. They are the same of any damage.
const ADVICE: &[&str] = &["The repository ", "Fatal: repository contains errors"];

/// What is damaged. The first is the cause of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    MissingPacks,
    DamagedPacks,
    DamagedIndex,
    DamagedStructure,
}

/// What a check found: what is damaged, with restic's line about each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    found: BTreeMap<Subject, String>,
}

/// One thing that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    kind: Kind,
    /// Id of a pack file; of everything else the ids that its line names, or the line if it names none.
    what: String,
}

impl Damage {
    /// The first kind that was found; `None` if there is no damage.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.found.keys().next().map(|subject| subject.kind)
    }

    /// Ids of pack files that are not there.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.of_kind(Kind::MissingPacks)
    }

    /// Ids of all damaged pack files, the missing ones first.
    pub fn packs(&self) -> impl Iterator<Item = &str> {
        self.missing().chain(self.of_kind(Kind::DamagedPacks))
    }

    /// restic's lines, the first few.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.found.values().take(WORDS_MAX).map(String::as_str)
    }

    /// Takes another check's damage in.
    pub fn add(&mut self, other: Damage) {
        for (subject, line) in other.found {
            self.found.entry(subject).or_insert(line);
        }
    }

    /// The part of it that another check found as well.
    #[must_use]
    pub fn also_in(mut self, other: &Damage) -> Option<Damage> {
        self.found.retain(|subject, _| other.found.contains_key(subject));
        (!self.found.is_empty()).then_some(self)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let found = self.found.keys().filter(move |subject| subject.kind == kind);
        found.map(|subject| subject.what.as_str())
    }

    fn note(&mut self, evidence: Evidence<'_>, line: &str) {
        let line = line.trim();
        let (kind, what) = match evidence {
            Evidence::Missing(pack) => (Kind::MissingPacks, pack.to_owned()),
            Evidence::Broken(pack) => (Kind::DamagedPacks, pack.to_owned()),
            Evidence::Index => (Kind::DamagedIndex, subject_of(line)),
            Evidence::Structure => (Kind::DamagedStructure, subject_of(line)),
        };
        let words = line.chars().take(WORD_MAX).collect();
        self.found.entry(Subject { kind, what }).or_insert(words);
    }
}

/// The ids in a line; the line itself if it has none. Two checks may word the same damage in different ways.
fn subject_of(line: &str) -> String {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    let ids: BTreeSet<&str> = words
        .filter(|word| word.len() >= ID_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    if ids.is_empty() {
        return line.to_owned();
    }
    ids.into_iter().collect::<Vec<_>>().join(" ")
}

enum Evidence<'a> {
    Missing(&'a str),
    Broken(&'a str),
    Index,
    Structure,
}

/// What `restic check` found, by its exit code and its lines on stderr. `None` is a repository without damage.
///
/// # Errors
/// Why nothing is known: the repository could not be read, or not wholly.
pub fn judge(code: Option<i32>, stderr: &str) -> Result<Option<Damage>, Failure> {
    if code == Some(0) {
        return Ok(None);
    }
    if code != Some(1) {
        return Err(classify(code, stderr));
    }
    let (mut damage, mut unread) = (Damage::default(), None);
    for line in stderr.lines() {
        if let Some(class) = class_of(line) {
            unread.get_or_insert_with(|| class(cause_of(line)));
        } else if let Some(evidence) = pack(line) {
            damage.note(evidence, line);
        } else if NOT_READ.iter().any(|words| line.contains(words)) {
            unread.get_or_insert_with(|| Failure::Other(cause_of(line)));
        } else if let Some(evidence) = structure(line) {
            damage.note(evidence, line);
        }
    }
    if damage.kind().is_some() {
        return Ok(Some(damage));
    }
    match (unread, classify(code, stderr)) {
        (Some(unread), _) => Err(unread),
        (None, Failure::Damaged(text)) => Ok(Some(unspecified(stderr, &text))),
        (None, failure) if stderr.contains("repository contains errors") => {
            Ok(Some(unspecified(stderr, &failure.to_string())))
        }
        (None, failure) => Err(failure),
    }
}

/// Damage in words that are not known: all lines that may be about it, or `words` where there are none.
fn unspecified(stderr: &str, words: &str) -> Damage {
    let mut damage = Damage::default();
    let is_end = |line: &str| ADVICE.iter().any(|start| line.starts_with(start));
    let lines = stderr.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !is_end(line)) {
        damage.note(Evidence::Structure, line);
    }
    if damage.kind().is_none() {
        damage.note(Evidence::Structure, words);
    }
    damage
}

/// A line about a pack file.
fn pack(line: &str) -> Option<Evidence<'_>> {
    let rest = line.trim().strip_prefix("pack ")?;
    let (id, rest) = rest.split_at_checked(64)?;
    if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    if rest.starts_with(": does not exist") {
        return Some(Evidence::Missing(id));
    }
    let broken = rest.starts_with(": unexpected file size") || rest.starts_with(" contains ");
    (broken && !rest.contains("download error") && !rest.contains("contained in several"))
        .then_some(Evidence::Broken(id))
}

/// A line about anything else.
fn structure(line: &str) -> Option<Evidence<'_>> {
    if ADVICE.iter().any(|start| line.starts_with(start)) {
        return None;
    }
    if line.contains("error loading index") {
        return Some(Evidence::Index);
    }
    let told = STRUCTURE.iter().any(|words| line.contains(words));
    told.then_some(Evidence::Structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: &str = "d16653d5c8739aa332502e78b79c9ff8d413a5c84535e98efc37eadbe5a70dc6";
    const END: &str = "\nThe repository is damaged and must be repaired. Please follow the troubleshooting guide at \
                          https://restic.readthedocs.io/en/stable/077_troubleshooting.html .\n\nFatal: repository contains errors\n";

    fn damage(lines: &str) -> Damage {
        judge(Some(1), &format!("{lines}\n{END}")).unwrap().unwrap()
    }

    fn unknown(lines: &str) -> Failure {
        judge(Some(1), &format!("{lines}\n{END}")).unwrap_err()
    }

    #[test]
    fn a_missing_pack_is_named_by_restics_message_alone() {
        let found = damage(&format!(
            "pack {PACK}: does not exist\nLoad(<data/d16653d5c8>, 3000360, 0) failed: open /r/{PACK}: no such file or directory\n\
             download error: open /r/{PACK}: no such file or directory"
        ));
        assert_eq!(found.kind(), Some(Kind::MissingPacks));
        assert_eq!(found.packs().collect::<Vec<_>>(), [PACK]);
        assert_eq!(
            found.words().collect::<Vec<_>>(),
            [format!("pack {PACK}: does not exist")]
        );
    }

    #[test]
    fn a_damaged_pack_is_named_and_so_is_a_short_one() {
        for line in [
            format!(
                "pack {PACK} contains 2 errors: [blob 03: decrypting blob <data/03> from d1 failed: ciphertext verification failed]"
            ),
            format!("pack {PACK}: unexpected file size: got 1000, expected 3000360"),
        ] {
            let found = damage(&line);
            assert_eq!(
                (found.kind(), found.packs().count(), found.missing().count()),
                (Some(Kind::DamagedPacks), 1, 0),
                "{line}"
            );
        }
    }

    #[test]
    fn index_and_snapshots_are_told_apart() {
        for (line, kind) in [
            (
                "error: error loading index 8ec1: LoadRaw(<index/8ec1>): invalid data returned",
                Kind::DamagedIndex,
            ),
            (
                "error: failed to load snapshot 545c: LoadRaw(<snapshot/545c>): invalid data returned",
                Kind::DamagedStructure,
            ),
            (
                "error for tree b72c:\n  tree b72c: file \"f1\" blob b189 not found in index",
                Kind::DamagedStructure,
            ),
            (
                "error for tree 22b8:\n  id 22b8 not found in repository",
                Kind::DamagedStructure,
            ),
            ("error for tree 22b8:\n  something new", Kind::DamagedStructure),
        ] {
            assert_eq!(damage(line).kind(), Some(kind), "{line}");
        }
    }

    #[test]
    fn a_repository_that_could_not_be_read_is_not_damaged() {
        for line in [
            "Load(<data/d16653d5c8>, 0, 0) returned error, retrying after 5.9s: dial tcp 10.0.0.1:443: connect: connection refused\n\
             download error: dial tcp 10.0.0.1:443: connect: connection refused",
            "error: error loading index 8ec1: Load(<index/8ec1>): dial tcp: i/o timeout",
            "error for tree 22b8:\n  ReadFull(<data/b4>): unexpected HTTP response (500): 500 Internal Server Error",
            "download error: unexpected HTTP response (500): 500 Internal Server Error",
            "error: failed to load snapshot 545c: Access Denied.",
        ] {
            let failure = unknown(line);
            assert!(!matches!(failure, Failure::Damaged(_)), "{line}: {failure:?}");
        }
        assert!(matches!(judge(Some(11), "locked"), Err(Failure::Locked(_))));
        assert_eq!(judge(Some(12), ""), Err(Failure::WrongPassword));
        assert_eq!(judge(None, ""), Err(Failure::Interrupted));
        assert!(judge(Some(1), "unknown flag: --read-data-subset").is_err());
        assert_eq!(judge(Some(0), "anything"), Ok(None));
    }

    #[test]
    fn damage_of_several_parts_is_one() {
        let mut all = Damage::default();
        for line in [
            format!("pack {PACK} contains 1 errors: [x]"),
            format!("pack {}: does not exist", "a".repeat(64)),
        ] {
            all.add(damage(&line));
        }
        assert_eq!(
            (all.kind(), all.packs().count(), all.words().count()),
            (Some(Kind::MissingPacks), 2, 2)
        );
    }

    #[test]
    fn only_what_two_checks_name_is_left() {
        let (one, two) = ("a".repeat(64), "b".repeat(64));
        let broken = |pack: &str| format!("pack {pack} contains 1 errors: [x]");
        let first = damage(&format!("{}\n{}", broken(&one), broken(&two)));
        let both = damage(&broken(&two)).also_in(&first).unwrap();
        assert_eq!(both.packs().collect::<Vec<_>>(), [two.as_str()]);
        for (line, other, same) in [
            (
                format!("id {one} not found in repository"),
                format!("id {two} not found in repository"),
                false,
            ),
            (
                format!("error: failed to load snapshot {one}: invalid data returned"),
                format!("error: failed to load snapshot {one}: ciphertext verification failed"),
                true,
            ),
            (
                "error for tree 1:\n  one thing".to_owned(),
                "error for tree 2:\n  another thing".to_owned(),
                false,
            ),
            (
                "error for tree 1:\n  new".to_owned(),
                "error for tree 1:\n  new".to_owned(),
                true,
            ),
        ] {
            assert_eq!(
                damage(&line).also_in(&damage(&other)).is_some(),
                same,
                "{line}, {other}"
            );
        }
    }
}
