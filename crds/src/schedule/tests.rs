use super::*;

fn next(schedule: &str, zone: &str, after: &str) -> String {
    let schedule = Schedule::parse(schedule, zone).unwrap();
    schedule.next_after(after.parse().unwrap()).unwrap().to_string()
}

#[test]
fn what_kubernetes_takes_is_taken() {
    assert_eq!(
        next("30 2 * * *", "UTC", "2026-11-23T03:00:00Z"),
        "2026-11-24T02:30:00Z"
    );
    assert_eq!(
        next("@daily", "UTC", "2026-11-23T03:00:00Z"),
        "2026-11-24T00:00:00Z"
    );
    assert_eq!(
        next("@midnight", "UTC", "2026-11-23T03:00:00Z"),
        "2026-11-24T00:00:00Z"
    );
    assert_eq!(
        next("*/15 */2 * * *", "UTC", "2026-11-23T02:20:00Z"),
        "2026-11-23T02:30:00Z"
    );
    assert_eq!(
        next("0 0 1 JAN *", "UTC", "2026-11-23T00:00:00Z"),
        "2027-01-01T00:00:00Z"
    );
    assert_eq!(
        next("@every 1h30m", "UTC", "2026-11-23T00:00:00Z"),
        "2026-11-23T01:30:00Z"
    );
}

#[test]
fn the_time_zone_counts() {
    assert_eq!(
        next("0 3 * * *", "Europe/Berlin", "2026-11-23T00:00:00Z"),
        "2026-11-23T02:00:00Z"
    );
}

#[test]
fn what_kubernetes_refuses_is_refused() {
    for bad in [
        "",
        "12345",
        "61 * * * *",
        "garbage 0 3 * * 0",
        "@dailyXYZ",
        "0 0 L * *",
        "0 0 * * 5#2",
        "* * * * * *",
        "0 3 * * 7",
        "5-1 * * * *",
        "TZ=UTC 0 3 * * *",
        " @daily",
        "@every 1d",
    ] {
        assert!(Schedule::parse(bad, "UTC").is_err(), "{bad:?} was taken");
    }
    for bad in ["Local", "Mars/Olympus", "europe/berlin", "utc", "../UTC", "UTC/"] {
        assert_eq!(
            Schedule::parse("@daily", bad).unwrap_err(),
            ScheduleError::TimeZone(bad.to_owned())
        );
    }
}

#[test]
fn a_day_that_never_comes_has_no_next() {
    assert_eq!(
        Schedule::parse("0 0 31 2 *", "UTC")
            .unwrap()
            .next_after(Timestamp::UNIX_EPOCH),
        None
    );
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_to_write() {
    for (schedule, detail) in [
        ("61 * * * *", "minute 61 is out of range (0-59)"),
        ("0 3 * * 7", "weekday 7 is out of range (0-6); write 0 for Sunday"),
        ("0 3 * *", "it has 4 fields instead of five"),
        ("0 22-6 * * *", "the range \"22-6\" ends before it begins"),
        ("0 x * * *", "\"x\" is not a number of the field hour"),
        ("@every 1d", "\"1d\" is not a duration such as 6h or 1h30m"),
        (
            "TZ=UTC 0 3 * * *",
            "it must not name a time zone; write it in spec.timezone",
        ),
    ] {
        let ScheduleError::Cron { detail: got, .. } = Schedule::parse(schedule, "UTC").unwrap_err() else {
            panic!("{schedule:?} has a wrong error");
        };
        assert_eq!(got, detail, "{schedule:?}");
    }
}

#[test]
fn clock_changes_are_those_of_kubernetes() {
    // 02:30 does not exist on that day: Kubernetes leaves it out.
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"),
        "2026-03-30T00:30:00Z"
    );
    // 02:30 comes twice on that day, and so does the run.
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"),
        "2026-10-25T00:30:00Z"
    );
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z"),
        "2026-10-25T01:30:00Z"
    );
}

#[test]
fn an_interval_counts_from_the_last_run() {
    let every = Schedule::parse("@every 1h", "UTC").unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let last = Some(at("2026-11-23T00:20:05Z"));
    assert_eq!(
        every.next_run(last, at("2026-11-23T00:30:00Z")),
        Some(at("2026-11-23T01:20:05Z"))
    );
    assert_eq!(
        every.next_run(last, at("2026-11-23T05:20:05Z")),
        Some(at("2026-11-23T06:20:05Z")),
        "runs that were missed do not move the ones that follow"
    );
    assert_eq!(
        every.next_run(None, at("2026-11-23T05:20:05Z")),
        Some(at("2026-11-23T06:20:05Z"))
    );
}

#[test]
fn a_schedule_without_any_minute_ends_the_search_at_once() {
    let started = std::time::Instant::now();
    let never = Schedule::parse(", * * * *", "UTC").unwrap();
    assert_eq!(never.next_after(Timestamp::UNIX_EPOCH), None);
    assert!(started.elapsed() < std::time::Duration::from_millis(200));
}

/// Samoa had no 30th of December in 2011: the search comes over it, where that of Kubernetes does not end.
#[test]
fn a_day_that_a_zone_leaves_out_does_not_hold_the_search() {
    let after: Timestamp = "2011-12-29T07:33:06Z".parse().unwrap();
    for (schedule, then) in [
        ("0 12 15 * *", "2012-01-14T22:00:00Z"),
        ("0 12 31 * *", "2011-12-30T22:00:00Z"),
    ] {
        let schedule = Schedule::parse(schedule, "Pacific/Apia").unwrap();
        assert_eq!(schedule.next_after(after), Some(then.parse().unwrap()));
    }
}

#[test]
fn what_is_due_more_than_once_an_hour_is_known() {
    let hourly = |text: &str| Schedule::parse(text, "UTC").unwrap().is_at_most_hourly();
    for text in ["5 * * * *", "5 4 * * *", "@hourly", "@daily", "@every 1h"] {
        assert!(hourly(text), "{text}");
    }
    for text in [
        "* * * * *",
        "*/30 4 * * *",
        "0,30 4 1 1 *",
        "5-6 * * * *",
        "@every 59m",
    ] {
        assert!(!hourly(text), "{text}");
    }
}
