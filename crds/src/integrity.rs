//! Regular checks of a repository's integrity: what is asked for, and what is known of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ResticRepository;
use crate::common::ObjectReference;
use crate::progress::RunProgress;
use crate::schedule::schema::{BAD_SCHEDULE, schedule_rule};

/// Schedule of checks that are switched on without one.
pub const DEFAULT_SCHEDULE: &str = "@weekly";
/// restic tells parts by the first byte of a pack file's id.
const PARTS_MAX: u32 = 256;

/// Regular `restic check`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegrityCheck {
    /// false switches checks off. A schedule or readDataSubset alone switches them on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Five cron fields or @weekly, in UTC; @weekly unless given. H is a value that follows from the repository's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(schedule_rule()).message(BAD_SCHEDULE))]
    pub schedule: Option<String>,
    /// How much of the data each check reads: n/t reads n of t equal parts of the pack files, and the next check goes on
    /// with the part that follows, so that t/n checks read everything. 1/1 reads all data each time. Fractions are reduced,
    /// 2/20 to 1/10; a check of several parts reads the structure once for each, so 1/t is quickest. Without it the
    /// structure alone is checked: pack files that are missing or too short are found, and changed bytes in them are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,2}/[1-9][0-9]{0,2}$') && \
int(self.split('/')[0]) <= int(self.split('/')[1]) && int(self.split('/')[1]) <= 256")
        .message("readDataSubset must be n/t with n not above t, and t not above 256: 1/20 reads another twentieth of the data each time"))]
    pub read_data_subset: Option<String>,
}

impl IntegrityCheck {
    /// Whether checks are asked for. A schedule means a check, unless it is switched off.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let named = self.schedule.is_some() || self.read_data_subset.is_some();
        self.enabled.unwrap_or(named)
    }

    /// The schedule as it is written, or the default.
    #[must_use]
    pub fn schedule(&self) -> &str {
        self.schedule.as_deref().map_or(DEFAULT_SCHEDULE, str::trim)
    }
}

/// Part of the data that each check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Parts that one check reads.
    pub each: u32,
    /// Parts that there are, 1 to 256.
    pub of: u32,
}

impl Subset {
    /// Reads `n/t`; `None` if it is not valid. The fraction is reduced: restic checks the structure for each part that it
    /// reads, and one of ten parts is the same amount as two of twenty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Subset> {
        let (each, of) = text.split_once('/')?;
        let number = |text: &str| {
            let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|n| digits && *n > 0)
        };
        let subset = Subset {
            each: number(each)?,
            of: number(of)?,
        };
        (subset.each <= subset.of && subset.of <= PARTS_MAX).then(|| subset.reduced())
    }

    fn reduced(self) -> Subset {
        let divisor = greatest_common_divisor(self.each, self.of);
        Subset {
            each: self.each / divisor,
            of: self.of / divisor,
        }
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 {
        one
    } else {
        greatest_common_divisor(other, one % other)
    }
}

/// What is known of integrity checks, beside time and result of the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegrityCheckStatus {
    /// What the last check reported, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When a check last found no damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_passed: Option<Time>,
    /// First part of the data that the next check reads, from 1 to `parts`. It stays while the part is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_part: Option<i32>,
    /// Parts of spec.integrityCheck.readDataSubset that `nextPart` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<i32>,
    /// When checks had last read all parts without damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_parts_read: Option<Time>,
    /// The damage that the last check with a result found. Present until a check of the same parts finds none; no snapshot
    /// is removed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
    /// When the next check is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    /// How far the check that is under way has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// Jobs of checks that are under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_job_ref: Option<ObjectReference>,
    /// uids of the Jobs whose result is taken in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_jobs: Vec<String>,
}

/// Damage of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// When it was first found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Time>,
    /// DamagedPacks, MissingPacks, DamagedIndex or DamagedStructure.
    pub reason: String,
    /// restic's words.
    pub message: String,
    /// Ids of the pack files that are damaged or missing, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<String>,
    /// Parts of the data that were read when it was found, of `of` parts: the next check reads the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<i32>,
}

impl IntegrityCheckStatus {
    /// What is damaged and what to do, for people; `None` if nothing is.
    #[must_use]
    pub fn damage_in_words(&self) -> Option<String> {
        let damage = self.damage.as_ref()?;
        let since = damage.found.as_ref();
        let since = since.map(|found| format!(" at {}", found.0)).unwrap_or_default();
        Some(format!(
            "an integrity check found damage{since}: {}. Backups go on, and no snapshot is removed until a check finds no damage. \
             To mend it {}; then start a check, as docs/maintenance.md shows",
            damage.message,
            damage.remedy()
        ))
    }
}

impl Damage {
    /// What a person can do, after "to mend it".
    fn remedy(&self) -> String {
        let copy = "bring the files back from a copy of the storage";
        let give_up = "`restic repair snapshots --forget`";
        match self.reason.as_str() {
            "MissingPacks" => {
                format!("{copy}, or give up what is lost: `restic repair index`, then {give_up}")
            }
            "DamagedPacks" => {
                let packs = match self.packs.as_slice() {
                    [] => "ID...".to_owned(),
                    packs => packs.join(" "),
                };
                format!("{copy}, or keep what can be read: `restic repair packs {packs}`, then {give_up}")
            }
            "DamagedIndex" => "run `restic repair index`".to_owned(),
            _ => "follow https://restic.readthedocs.io/en/stable/077_troubleshooting.html".to_owned(),
        }
    }
}

/// The damage that the checks of a repository have found, in words; `None` if there is none.
#[must_use]
pub fn damage_of(repository: &ResticRepository) -> Option<String> {
    let status = repository.status.as_ref()?;
    status.integrity_check.as_ref()?.damage_in_words()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_is_a_number_of_parts_of_not_more_than_256() {
        let parse = |text: &str| Subset::parse(text).map(|s| (s.each, s.of));
        for (text, read) in [
            ("1/20", Some((1, 20))),
            ("3/256", Some((3, 256))),
            ("1/1", Some((1, 1))),
            ("2/20", Some((1, 10))),
            ("6/9", Some((2, 3))),
            ("20/20", Some((1, 1))),
            ("2/1", None),
            ("0/5", None),
            ("1/257", None),
            ("+1/5", None),
            ("01/5", None),
            ("50%", None),
            ("1/5/2", None),
        ] {
            assert_eq!(parse(text), read, "{text}");
        }
    }

    #[test]
    fn a_schedule_or_a_subset_asks_for_checks_unless_they_are_switched_off() {
        let check = |enabled: Option<bool>, schedule: Option<&str>, subset: Option<&str>| {
            IntegrityCheck {
                enabled,
                schedule: schedule.map(str::to_owned),
                read_data_subset: subset.map(str::to_owned),
            }
            .is_wanted()
        };
        assert!(check(Some(true), None, None) && check(None, Some("@daily"), None));
        assert!(check(None, None, Some("1/20")));
        assert!(!check(None, None, None) && !check(Some(false), Some("@daily"), Some("1/20")));
    }
}
