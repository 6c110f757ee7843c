//! restic itself as the oracle of a plan: whatever snapshots and policies there are, what is left is exactly the union
//! of what `restic forget --dry-run` keeps for each policy alone, what no policy selects, and what no policy that would
//! remove it may remove: previews, suspended and unclear policies, those of their own cluster alone, snapshots of
//! clusters that are not bound and of none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};
use rand::prelude::*;
use rand::rngs::StdRng;
use spoke::restic::{Snapshot, output};
use spoke::worker::plan::{self, Decision, RuleVerdict};
use spoke::worker::{forget, select};

use crate::weak_key::repository;

const POOL: usize = 240;
/// Unless `FLEET_TEST_CASES` says otherwise; `make long` has more.
const CASES: u64 = 300;
const THREADS: u64 = 4;
const TAGS: [&str; 5] = [
    "daily",
    "gold",
    "fleet.cluster=a",
    "fleet.cluster=b",
    "fleet.cluster=gone",
];
const HOSTS: [&str; 2] = ["db", "web"];
const FOLDERS: [&str; 2] = ["x", "y"];

type Ids = BTreeSet<String>;

fn restic(repository: &Path, arguments: &[String]) -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin");
    let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());
    let output = Command::new("restic")
        .args(["--no-cache", "-q", "-r"])
        .arg(repository)
        .args(arguments)
        .env("RESTIC_PASSWORD", "p")
        .env("PATH", path)
        .output()
        .expect("restic; make restic builds it");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "restic {arguments:?}: {told}");
    output.stdout
}

fn words<S: ToString>(words: &[S]) -> Vec<String> {
    words.iter().map(S::to_string).collect()
}

fn some<'a>(random: &mut StdRng, of: &[&'a str], chance: f64) -> Vec<&'a str> {
    of.iter()
        .copied()
        .filter(|_| random.random_bool(chance))
        .collect()
}

/// Snapshots of two hosts in about two years, some of them within the same hour.
fn fill(repository: &Path, data: &Path, random: &mut StdRng) {
    let mut commands = Vec::new();
    for folder in FOLDERS {
        std::fs::create_dir_all(data.join(folder)).unwrap();
        std::fs::write(data.join(folder).join("f"), folder).unwrap();
    }
    for n in 0..POOL {
        let days = random.random_range(0..700) / random.random_range(1..20);
        // Never two at the same time: which of them restic keeps is chance, so that two calls of it differ.
        let time = 1_790_000_000 - days * 86_400 - random.random_range(0..4) * 1_700 - n as i64;
        // Most are of cluster a, few of one that nobody knows any more, and few of none.
        let cluster = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3].choose(random).unwrap();
        let cluster = TAGS.get(2 + cluster).copied();
        let time = jiff::Timestamp::from_second(time).unwrap();
        let mut command = words(&["backup", "--host", HOSTS.choose(random).unwrap(), "--time"]);
        command.push(time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        for tag in some(random, &TAGS[..2], 0.1).into_iter().chain(cluster) {
            command.extend(words(&["--tag", tag]));
        }
        let folder = data.join(FOLDERS[usize::from(random.random_bool(0.1))]);
        command.push(folder.display().to_string());
        commands.push(command);
    }
    std::thread::scope(|scope| {
        for part in commands.chunks(POOL.div_ceil(THREADS as usize)) {
            scope.spawn(|| part.iter().for_each(|command| drop(restic(repository, command))));
        }
    });
}

fn rule(random: &mut StdRng) -> RetentionRule {
    let mut count = |most: u32| {
        if random.random_bool(0.25) {
            random.random_range(1..=most)
        } else {
            0
        }
    };
    let mut rule = RetentionRule {
        keep_last: count(4),
        keep_hourly: count(6),
        keep_daily: count(8),
        keep_weekly: count(5),
        keep_monthly: count(6),
        keep_yearly: count(2),
        ..RetentionRule::default()
    };
    let mut span = || {
        let spans = ["12h", "5d", "2m10d", "1y", "1y5m7d2h"];
        let one = random.random_bool(0.05).then(|| spans.choose(random).copied());
        one.flatten().unwrap_or_default().to_owned()
    };
    rule.keep_within = span();
    rule.keep_within_hourly = span();
    rule.keep_within_daily = span();
    rule.keep_within_weekly = span();
    rule.keep_within_monthly = span();
    rule.keep_within_yearly = span();
    rule.keep_tags = words(&some(random, &TAGS[..2], 0.1));
    // By tags alone restic may keep nothing of a group, which it refuses. Some rules are like that.
    let by_tags = !rule.keep_tags.is_empty() && random.random_bool(0.5);
    if !keeps_by_time(&rule) && !by_tags {
        rule.keep_last = 1;
    }
    rule.group_by = words(&some(random, &["host", "paths", "tags"], 0.2));
    rule.tags = words(&some(random, &TAGS, 0.15));
    if random.random_bool(0.3) {
        rule.hostname = (*HOSTS.choose(random).unwrap()).to_owned();
    }
    rule
}

/// Whether a rule has a count or a span, in this test's own words.
fn keeps_by_time(rule: &RetentionRule) -> bool {
    let counts = rule.keep_last
        + rule.keep_hourly
        + rule.keep_daily
        + rule.keep_weekly
        + rule.keep_monthly
        + rule.keep_yearly;
    let spans = [
        &rule.keep_within,
        &rule.keep_within_hourly,
        &rule.keep_within_daily,
        &rule.keep_within_weekly,
        &rule.keep_within_monthly,
        &rule.keep_within_yearly,
    ];
    counts > 0 || spans.iter().any(|span| !span.is_empty())
}

fn run(random: &mut StdRng) -> RetentionRun {
    let policies = (0..random.random_range(1..=3)).map(|n| RetentionPolicySpec {
        source: format!("{}/ns/p{n}", ["a", "b", "gone"].choose(random).unwrap()),
        rules: (0..random.random_range(1..=2)).map(|_| rule(random)).collect(),
        max_removed_percent: 100,
        preview: random.random_bool(0.15),
        suspended: random.random_bool(0.1),
        own_cluster_only: random.random_bool(0.15),
        unclear: if random.random_bool(0.05) { "unclear" } else { "" }.to_owned(),
        ..RetentionPolicySpec::default()
    });
    RetentionRun {
        policies: policies.collect(),
        clusters: words(&["a", "b"]),
        ..RetentionRun::default()
    }
}

/// What restic keeps and removes for a rule, asked for in this test's own words.
fn oracle(repository: &Path, rule: &RetentionRule) -> (Ids, Ids) {
    let mut arguments = words(&["forget", "--dry-run", "--no-lock", "--json"]);
    arguments.push(match rule.group_by.join(",") {
        none if none.is_empty() => "--group-by=host,paths,tags".to_owned(),
        some => format!("--group-by={some}"),
    });
    let mut flag = |name: &str, value: &str| {
        if !value.is_empty() && value != "0" {
            arguments.push(format!("--{name}={value}"));
        }
    };
    flag("host", &rule.hostname);
    flag("tag", &rule.tags.join(","));
    flag("keep-last", &rule.keep_last.to_string());
    flag("keep-hourly", &rule.keep_hourly.to_string());
    flag("keep-daily", &rule.keep_daily.to_string());
    flag("keep-weekly", &rule.keep_weekly.to_string());
    flag("keep-monthly", &rule.keep_monthly.to_string());
    flag("keep-yearly", &rule.keep_yearly.to_string());
    flag("keep-within", &rule.keep_within);
    flag("keep-within-hourly", &rule.keep_within_hourly);
    flag("keep-within-daily", &rule.keep_within_daily);
    flag("keep-within-weekly", &rule.keep_within_weekly);
    flag("keep-within-monthly", &rule.keep_within_monthly);
    flag("keep-within-yearly", &rule.keep_within_yearly);
    rule.keep_tags.iter().for_each(|tag| flag("keep-tag", tag));
    let printed = restic(repository, &arguments);
    let groups: serde_json::Value = serde_json::from_slice(&printed).unwrap_or_default();
    let ids = |list: &str| -> Ids {
        let groups = groups.as_array().into_iter().flatten();
        let snapshots = groups.flat_map(|group| group[list].as_array().into_iter().flatten());
        snapshots.map(|s| s["id"].as_str().unwrap().to_owned()).collect()
    };
    (ids("keep"), ids("remove"))
}

/// What must be removed if the policies of which `counts` is true may remove: what is matched by some rule, kept by
/// none that matches it, and in reach of one of these policies. Written without a look at the product's own rules.
fn expected(
    run: &RetentionRun,
    all: &[Snapshot],
    decided: &[Vec<Option<(Ids, Ids)>>],
    counts: impl Fn(&RetentionPolicySpec) -> bool,
) -> Ids {
    let goes = |snapshot: &&Snapshot| {
        let own = TAGS[2..]
            .iter()
            .find(|tag| snapshot.tags.contains(&(**tag).to_owned()));
        let mut allowed = false;
        for (policy, decided) in run.policies.iter().zip(decided) {
            for (rule, decided) in policy.rules.iter().zip(decided) {
                let wants = rule.tags.iter().all(|tag| snapshot.tags.contains(tag))
                    && (rule.hostname.is_empty() || rule.hostname == snapshot.hostname);
                if !wants {
                    continue;
                }
                let Some((keep, remove)) = decided else {
                    return false;
                };
                assert!(keep.contains(&snapshot.id) != remove.contains(&snapshot.id));
                if keep.contains(&snapshot.id) {
                    return false;
                }
                let named = own.is_some_and(|own| rule.tags.contains(&(*own).to_owned()));
                let reach = match own {
                    None => !rule.tags.is_empty() || !rule.hostname.is_empty(),
                    Some(own) => *own != "fleet.cluster=gone" || named,
                };
                let home = format!("fleet.cluster={}", policy.source.split('/').next().unwrap());
                let at_home = !policy.own_cluster_only || own.is_some_and(|own| *own == home);
                allowed |= reach && at_home && counts(policy);
            }
        }
        allowed
    };
    all.iter().filter(goes).map(|s| s.id.clone()).collect()
}

fn list(repository: &Path) -> Vec<Snapshot> {
    output::snapshots(&restic(repository, &words(&["snapshots", "--json", "--no-lock"]))).unwrap()
}

/// One case: how many snapshots there were and how many went.
fn case(seed: u64, pool: &[PathBuf]) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let size = random.random_range(1..=120);
    for file in pool.choose_multiple(&mut random, size) {
        let to = dir.path().join("snapshots").join(file.file_name().unwrap());
        std::fs::hard_link(file, to).unwrap();
    }
    let run = run(&mut random);
    let all = list(dir.path());
    assert_eq!(all.len(), size, "seed {seed}");
    let verdict = |rule: &RetentionRule| match forget::check(rule) {
        Err(wrong) => RuleVerdict::Refused(wrong.to_string()),
        // As the worker does it: restic is not asked where nothing matches.
        Ok(()) if !all.iter().any(|s| select::matches(rule, s)) => RuleVerdict::Decided(Decision::default()),
        Ok(()) => {
            let printed = restic(dir.path(), &forget::dry_run(rule));
            RuleVerdict::Decided(forget::decision(&printed).unwrap())
        }
    };
    let clear = |policy: &RetentionPolicySpec| policy.unclear.is_empty();
    let verdicts = run.policies.iter().map(|policy| {
        let rules = policy.rules.iter().filter(|_| clear(policy));
        rules.map(verdict).collect()
    });
    let plan = plan::make(&run, &all, &verdicts.collect::<Vec<_>>()).unwrap();
    let oracles = run.policies.iter().map(|policy| {
        let usable = |rule: &&RetentionRule| clear(policy) && keeps_by_time(rule);
        let ask = |rule| Some(rule).filter(usable).map(|rule| oracle(dir.path(), rule));
        policy.rules.iter().map(ask).collect()
    });
    let oracles: Vec<Vec<_>> = oracles.collect();
    let in_force = |p: &RetentionPolicySpec| !p.preview && !p.suspended;
    let now = expected(&run, &all, &oracles, in_force);
    let with_previews = expected(&run, &all, &oracles, |p| !p.suspended);
    let shown: Ids = with_previews.difference(&now).cloned().collect();
    let of = |list: &[proto::plan::Removal]| -> Ids { list.iter().map(|r| r.id.clone()).collect() };
    let (mut goes, mut previewed) = (of(&plan.document.remove), of(&plan.document.previewed));
    if plan.document.preview {
        std::mem::swap(&mut goes, &mut previewed);
    }
    assert_eq!(goes, now, "seed {seed}: {run:#?}");
    assert_eq!(previewed, shown, "seed {seed}: {run:#?}");
    // And what restic does with these ids is what was planned.
    if seed.is_multiple_of(10) && !goes.is_empty() {
        let mut arguments = words(&["forget"]);
        arguments.extend(goes.iter().cloned());
        restic(dir.path(), &arguments);
        let left: Ids = list(dir.path()).into_iter().map(|s| s.id).collect();
        let planned: Ids = all
            .iter()
            .map(|s| s.id.clone())
            .filter(|id| !goes.contains(id))
            .collect();
        assert_eq!(left, planned, "seed {seed}");
    }
    (size, goes.len())
}

#[test]
fn a_plan_keeps_exactly_the_union_of_what_restic_keeps_for_each_policy() {
    let number = |name: &str, unless: u64| std::env::var(name).map_or(unless, |text| text.parse().unwrap());
    let (first, cases) = (number("FLEET_TEST_SEED", 0), number("FLEET_TEST_CASES", CASES));
    let dir = tempfile::tempdir().unwrap();
    let (whole, data) = (dir.path().join("pool"), dir.path().join("data"));
    repository(&whole);
    fill(&whole, &data, &mut StdRng::seed_from_u64(first));
    let files = std::fs::read_dir(whole.join("snapshots")).unwrap();
    let mut pool: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    pool.sort();
    assert_eq!(pool.len(), POOL);
    let (mut snapshots, mut removed, mut idle) = (0, 0, 0);
    std::thread::scope(|scope| {
        let pool = &pool;
        let part = |n| {
            move || {
                (0..cases)
                    .filter(|c| c % THREADS == n)
                    .map(|c| case(first + c, pool))
                    .collect::<Vec<_>>()
            }
        };
        let parts: Vec<_> = (0..THREADS).map(|n| scope.spawn(part(n))).collect();
        for (size, gone) in parts.into_iter().flat_map(|part| part.join().unwrap()) {
            snapshots += size;
            removed += gone;
            idle += usize::from(gone == 0);
        }
    });
    eprintln!("{cases} cases: {removed} of {snapshots} snapshots go; in {idle} cases none");
    // The cases say something: they neither keep nor remove nearly everything.
    assert!(
        removed * 20 > snapshots && removed * 10 < snapshots * 9,
        "{removed} of {snapshots}"
    );
}
