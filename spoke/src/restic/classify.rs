//! What a failed run of restic means: by exit code first (restic 0.18 and later), by text second and conservatively.

use super::Failure;

/// Longest message that goes into a status.
const MESSAGE_MAX: usize = 300;

/// What restic puts before each line that ssh prints.
pub const SSH: &str = "subprocess ssh: ";

/// Texts of storage that cannot be reached (Go's net and TLS packages).
const UNREACHABLE: &[&str] = &[
    "connection refused",
    "no such host",
    "i/o timeout",
    "network is unreachable",
    "no route to host",
    "TLS handshake timeout",
    "connection reset by peer",
    "server misbehaving",
    "x509:",
    "tls: ",
    "context deadline exceeded",
    "request canceled while waiting for connection",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway",
    "ssh: ",
    SSH,
];

/// Texts of storage that refuses.
const FORBIDDEN: &[&str] = &[
    "Access Denied",
    "AccessDenied",
    "InvalidAccessKeyId",
    "does not exist in our records",
    "SignatureDoesNotMatch",
    "signature we calculated does not match",
    "401 Unauthorized",
    "403 Forbidden",
    "(401)",
    "(403)",
    "AuthenticationFailed",
    "invalid_grant",
    "Invalid bucket name",
    "Bucket name",
    "bad_auth_token",
    "Permission denied",
    "permission denied",
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "UNPROTECTED PRIVATE KEY FILE",
    "Load key ",
];

/// What Go's errors of a local file begin with. None of the storages that are read over the network has paths of this
/// machine.
const LOCAL_FILE: &str = "open /";

/// What restic prints before it gives up because its lock may have run out. A single refresh that failed is not the end:
/// restic tries again.
const LOCK_LOST: &str = "failed to refresh lock";

/// Texts of a repository that does not hold together.
const DAMAGED: &[&str] = &[
    "ciphertext verification failed",
    "invalid data returned",
    "config or key",
    "is damaged",
    "unable to decrypt",
    "invalid character",
    "unexpected end of JSON",
    "not found in index",
    "does not match id",
    "unsupported repository version",
    "config is invalid",
    "wrong hash",
    "ciphertext is too short",
    "trying to decrypt invalid data",
];

/// Class of a single line that restic printed, if the line alone decides. Used while restic still runs and retries.
#[must_use]
pub fn class_of(line: &str) -> Option<fn(String) -> Failure> {
    let has = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
    if has(FORBIDDEN) {
        Some(Failure::Forbidden)
    } else if has(UNREACHABLE) {
        Some(Failure::Unreachable)
    } else {
        None
    }
}

/// What an exit code and what was printed on stderr mean. `message` is made safe by the caller.
#[must_use]
pub fn classify(code: Option<i32>, stderr: &str) -> Failure {
    let message = message_of(stderr);
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    match code {
        Some(10) => Failure::NoRepository,
        Some(11) => Failure::Locked(message),
        Some(12) => Failure::WrongPassword,
        // What makes restic give up cancels all else that it does, so that its last words are those of an interruption.
        _ if stderr.contains(LOCK_LOST) => Failure::LockLost,
        _ if stderr.contains("config file already exists") => Failure::Exists,
        _ if has(DAMAGED) => Failure::Damaged(message),
        Some(130 | 143) | None => Failure::Interrupted,
        // A signal in the middle of `backup`.
        _ if message.ends_with("context canceled") => Failure::Interrupted,
        _ if message.contains("permission denied") && message.contains(LOCAL_FILE) => {
            Failure::FileUnreadable(message)
        }
        Some(code) => match class_of(stderr) {
            Some(class) => class(message),
            None if message.is_empty() => {
                Failure::Other(format!("restic ended with exit code {code} and no message"))
            }
            None => Failure::Other(message),
        },
    }
}

/// The line with the reason: the message of the last `exit_error`, or the last line that is not empty.
fn message_of(stderr: &str) -> String {
    let error = stderr.lines().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        (value.get("message_type")? == "exit_error")
            .then(|| value.get("message")?.as_str().map(str::to_owned))?
    });
    let text = error.unwrap_or_else(|| {
        stderr
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or_default()
            .to_owned()
    });
    // restic's own words are only that the connection ended.
    let ssh = stderr.lines().rev().find_map(|line| line.strip_prefix(SSH));
    match ssh
        .map(str::trim)
        .filter(|words| !words.is_empty() && !text.contains(words))
    {
        Some(words) => shorten(&format!("ssh: {words} ({})", shorten(&text))),
        None => shorten(&text),
    }
}

/// First line, bounded. Go appends stack traces to some messages.
#[must_use]
pub fn shorten(text: &str) -> String {
    let line = text
        .lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or_default()
        .trim();
    let line = line.strip_prefix("Fatal: ").unwrap_or(line);
    if line.chars().count() <= MESSAGE_MAX {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(MESSAGE_MAX - 1).collect();
    cut.push('…');
    cut
}

/// The text of a line about a retry behind `retrying after 1.5s: `, bounded.
#[must_use]
pub fn cause_of(line: &str) -> String {
    let cause = line
        .split_once("retrying after")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(line, |(_, cause)| cause);
    shorten(cause)
}

/// Replaces each of `secrets` by `***`.
#[must_use]
pub fn scrub<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    secrets
        .filter(|s| !s.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exit_codes_decide_before_texts() {
        let refused = "dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(classify(Some(10), refused), Failure::NoRepository);
        assert_eq!(classify(Some(12), refused), Failure::WrongPassword);
        assert_eq!(classify(Some(130), refused), Failure::Interrupted);
        assert_eq!(classify(None, ""), Failure::Interrupted);
        let cancelled = "unable to save snapshot: context canceled";
        assert_eq!(classify(Some(1), cancelled), Failure::Interrupted);
        assert!(matches!(classify(Some(1), refused), Failure::Unreachable(_)));
    }

    #[test]
    fn what_cancelled_restic_is_told_and_not_the_cancellation() {
        let cancelled = "Fatal: unable to save snapshot: context canceled";
        for code in [Some(1), Some(130), None] {
            let lost = format!("Fatal: failed to refresh lock in time\n{cancelled}");
            assert_eq!(classify(code, &lost), Failure::LockLost, "{code:?}");
            let damaged = format!("Load(<data/ab>): ciphertext verification failed\n{cancelled}");
            let failure = classify(code, &damaged);
            assert!(matches!(failure, Failure::Damaged(_)), "{code:?}: {failure:?}");
            let once = format!("unable to refresh lock: i/o timeout\n{cancelled}");
            assert_eq!(classify(code, &once), Failure::Interrupted, "{code:?}");
        }
    }

    #[test]
    fn the_message_is_that_of_the_exit_error() {
        let stderr = "noise\n{\"message_type\":\"exit_error\",\"code\":11,\"message\":\"already locked by PID 1 on pod\\nmore\"}\n";
        assert_eq!(
            classify(Some(11), stderr),
            Failure::Locked("already locked by PID 1 on pod".to_owned())
        );
    }

    #[test]
    fn a_file_of_the_pod_is_not_the_storages_refusal() {
        let own = "{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: unable to read root certificate: open /credentials/ca.crt: permission denied\"}";
        let Failure::FileUnreadable(words) = classify(Some(1), own) else {
            panic!("{:?}", classify(Some(1), own))
        };
        assert!(words.contains("/credentials/ca.crt"), "{words}");
        for theirs in [
            "Fatal: sftp: permission denied",
            "Fatal: server response: 403 Forbidden",
        ] {
            assert!(
                matches!(classify(Some(1), theirs), Failure::Forbidden(_)),
                "{theirs}"
            );
        }
    }

    #[test]
    fn the_words_of_ssh_are_kept() {
        let end = "Fatal: unable to open repository at sftp:u@h:/r: unable to start the sftp session, error: unexpected EOF";
        for (words, forbidden) in [
            ("Host key verification failed.", true),
            ("u@h: Permission denied (publickey).", true),
            ("No user exists for uid 65532", false),
            ("ssh: connect to host h port 22: Connection refused", false),
        ] {
            let failure = classify(Some(1), &format!("{SSH}{words}\n{end}\n"));
            assert_eq!(matches!(failure, Failure::Forbidden(_)), forbidden, "{failure:?}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn what_is_not_known_stays_unknown() {
        assert_eq!(
            classify(Some(1), "Fatal: something new"),
            Failure::Other("something new".to_owned())
        );
        assert!(matches!(classify(Some(77), ""), Failure::Other(_)));
    }

    #[test]
    fn an_existing_repository_is_not_a_success_of_init() {
        assert_eq!(
            classify(
                Some(1),
                "Fatal: create repository at x failed: config file already exists"
            ),
            Failure::Exists
        );
    }

    proptest! {
        #[test]
        fn no_secret_survives_scrubbing(secret in "[a-zA-Z0-9/+]{8,40}", before in ".{0,40}", after in ".{0,40}") {
            let text = format!("{before}{secret}{after}");
            prop_assert!(!scrub(&text, std::iter::once(secret.as_str())).contains(&secret));
        }

        #[test]
        fn messages_are_one_bounded_line(text in "(?s).{0,2000}") {
            let short = shorten(&text);
            prop_assert!(!short.contains('\n') && short.chars().count() <= MESSAGE_MAX);
        }
    }
}
