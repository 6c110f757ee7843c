//! What the lines of a failed `restic check` mean: damage, or a repository that could not be read. Pure. restic ends both
//! with exit code 1, and names a missing pack file in its message alone.

use std::collections::BTreeSet;

use crate::restic::{Failure, cause_of, class_of, classify};

/// Lines of restic that are kept for people.
const WORDS_MAX: usize = 3;
/// Longest of them.
const WORD_MAX: usize = 300;
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

/// What is damaged. The first is the cause of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    MissingPacks,
    DamagedPacks,
    DamagedIndex,
    DamagedStructure,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// `None` if there is no damage.
    pub kind: Option<Kind>,
    /// Ids of pack files that are not there.
    pub missing: BTreeSet<String>,
    /// Ids of pack files that are not what they were.
    pub broken: BTreeSet<String>,
    /// restic's words, the first few lines.
    pub words: Vec<String>,
}

impl Damage {
    /// All pack files, the missing ones first.
    pub fn packs(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().chain(&self.broken).map(String::as_str)
    }

    /// Takes another check's damage in.
    pub fn add(&mut self, other: Damage) {
        self.kind = [self.kind, other.kind].into_iter().flatten().min();
        self.missing.extend(other.missing);
        self.broken.extend(other.broken);
        for word in other.words {
            self.say(word);
        }
    }

    fn say(&mut self, word: String) {
        if self.words.len() < WORDS_MAX && !self.words.contains(&word) {
            self.words.push(word);
        }
    }

    fn note(&mut self, evidence: Evidence<'_>, line: &str) {
        let kind = match evidence {
            Evidence::Missing(pack) => {
                self.missing.insert(pack.to_owned());
                Kind::MissingPacks
            }
            Evidence::Broken(pack) => {
                self.broken.insert(pack.to_owned());
                Kind::DamagedPacks
            }
            Evidence::Index => Kind::DamagedIndex,
            Evidence::Structure => Kind::DamagedStructure,
        };
        self.kind = [self.kind, Some(kind)].into_iter().flatten().min();
        self.say(line.trim().chars().take(WORD_MAX).collect());
    }
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
    if damage.kind.is_some() {
        return Ok(Some(damage));
    }
    match (unread, classify(code, stderr)) {
        (Some(unread), _) => Err(unread),
        (None, Failure::Damaged(text)) => Ok(Some(unspecified(text))),
        (None, failure) if stderr.contains("repository contains errors") => {
            let first = stderr.lines().find(|line| !line.trim().is_empty());
            let words = first.map_or_else(|| failure.to_string(), str::to_owned);
            Ok(Some(unspecified(words)))
        }
        (None, failure) => Err(failure),
    }
}

/// Damage in words that are not known.
fn unspecified(words: String) -> Damage {
    let mut damage = Damage::default();
    damage.note(Evidence::Structure, &words);
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
    // restic's advice at the end names no cause.
    if line.starts_with("The repository ") {
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
    const ADVICE: &str = "\nThe repository is damaged and must be repaired. Please follow the troubleshooting guide at \
                          https://restic.readthedocs.io/en/stable/077_troubleshooting.html .\n\nFatal: repository contains errors\n";

    fn damage(lines: &str) -> Damage {
        judge(Some(1), &format!("{lines}\n{ADVICE}")).unwrap().unwrap()
    }

    fn unknown(lines: &str) -> Failure {
        judge(Some(1), &format!("{lines}\n{ADVICE}")).unwrap_err()
    }

    #[test]
    fn a_missing_pack_is_named_by_restics_message_alone() {
        let found = damage(&format!(
            "pack {PACK}: does not exist\nLoad(<data/d16653d5c8>, 3000360, 0) failed: open /r/{PACK}: no such file or directory\n\
             download error: open /r/{PACK}: no such file or directory"
        ));
        assert_eq!(found.kind, Some(Kind::MissingPacks));
        assert_eq!(found.packs().collect::<Vec<_>>(), [PACK]);
        assert_eq!(found.words, [format!("pack {PACK}: does not exist")]);
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
                (found.kind, found.broken.len(), found.missing.len()),
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
            assert_eq!(damage(line).kind, Some(kind), "{line}");
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
            (all.kind, all.packs().count(), all.words.len()),
            (Some(Kind::MissingPacks), 2, 2)
        );
    }
}
