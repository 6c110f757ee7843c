use super::*;

fn of(line: &str) -> Call {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    call(&words)
}

#[test]
fn a_backup_is_read() {
    let call = of(
        "-r s3:http://x/b backup /data --host=web --tag a,b --tag c -x -e *.tmp --exclude-caches --limit-upload 10 --no-lock -o s3.x=1 -q",
    );
    assert_eq!(call.command, "backup");
    assert_eq!(call.repository.as_deref(), Some("s3:http://x/b"));
    assert_eq!(call.host.as_deref(), Some("web"));
    assert_eq!(call.tags, ["a", "b", "c"]);
    assert_eq!(call.paths, ["/data"]);
    assert_eq!(call.excludes, ["*.tmp"]);
    assert_eq!(
        call.extra,
        ["--one-file-system", "--exclude-caches", "--limit-upload=10"]
    );
    let left: Vec<&str> = call.left_out.iter().map(|(option, _)| option.as_str()).collect();
    assert_eq!(left, ["--no-lock", "--option=s3.x=1"]);
}

#[test]
fn switches_in_one_word_are_each_read() {
    assert_eq!(
        of("forget -vn --keep-last 1").unclear,
        ["--dry-run changes what it removes"]
    );
    assert_eq!(of("forget -cvH5 -l 1").unclear, [] as [&str; 0]);
    assert_eq!(of("backup -H web /data").host.as_deref(), Some("web"));
    assert_eq!(of("backup -xv /data").extra, ["--one-file-system"]);
}

#[test]
fn a_forget_is_read() {
    let call = of(
        "forget --keep-daily 7 -w 4 --keep-within=14d --keep-last 0 --keep-within-hourly 2w --prune --group-by host",
    );
    assert!(call.prune);
    assert_eq!(
        Value::Object(call.keep),
        json!({ "keepDaily": 7, "keepWeekly": 4, "keepWithin": "14d" })
    );
    assert_eq!(call.left_out[0].0, "--keep-within-hourly=2w");
}
