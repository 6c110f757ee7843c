//! Text of one side that the other prints: no control characters, no invisible change of direction, bounded.

/// Longest name or message that is taken over.
pub const LONGEST: usize = 2048;

/// Whether a character could move the cursor, hide text or turn its direction round.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Makes a text safe to print on one line: line breaks become spaces, other harmful characters `?`, and what is longer
/// than `longest` bytes is cut.
pub fn clean(text: &mut String, longest: usize) {
    let cut = text.len() > longest;
    if !cut && !text.chars().any(is_harmful) {
        return;
    }
    let safe = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_harmful(c) => '?',
        c => c,
    };
    let mut cleaned = String::with_capacity(text.len().min(longest));
    for c in text.chars().map(safe) {
        if cleaned.len() + c.len_utf8() > longest {
            break;
        }
        cleaned.push(c);
    }
    *text = cleaned;
}

/// A cleaned copy, of any length.
#[must_use]
pub fn cleaned(text: &str) -> String {
    let mut text = text.to_owned();
    clean(&mut text, usize::MAX);
    text
}

/// An address without user and password, fit for status, logs and the hub.
#[must_use]
pub fn without_credentials(address: &str) -> String {
    with_credentials_as(address, "")
}

/// An address with `mark`, if there is one, in the place of user and password.
#[must_use]
pub fn with_credentials_as(address: &str, mark: &str) -> String {
    let Some((before, after)) = around_credentials(address) else {
        return address.to_owned();
    };
    match mark {
        "" => format!("{before}{after}"),
        mark => format!("{before}{mark}@{after}"),
    }
}

/// What is before user and password, and what is after them. `None` where there are none: a user alone, as in
/// `sftp:user@host:/path`, is no secret, unless it is part of a URL.
fn around_credentials(address: &str) -> Option<(&str, &str)> {
    let (scheme, is_url) = match (address.split_once("://"), address.split_once(':')) {
        (Some((scheme, _)), _) => (scheme.len() + 3, true),
        (None, Some((scheme, _))) => (scheme.len() + 1, false),
        (None, None) => return None,
    };
    let (before, rest) = address.split_at_checked(scheme)?;
    let authority = rest.split('/').next().unwrap_or_default();
    // The last @: a password may hold one. One behind the first slash belongs to the path.
    let (credentials, after) = match authority.rsplit_once('@') {
        Some((credentials, _)) => (credentials, rest.get(credentials.len() + 1..)?),
        // Unless there is no host before the slash: it is in a password that no program could read.
        None if !is_host(authority) => rest.rsplit_once('@')?,
        None => return None,
    };
    (is_url || credentials.contains(':')).then_some((before, after))
}

/// Whether a text could be a host, with or without a port.
fn is_host(text: &str) -> bool {
    let port = text.rsplit(']').next().unwrap_or_default();
    let port = port.split_once(':').map_or("", |(_, port)| port);
    port.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(cleaned("a\u{1b}[2Jb\nc\u{202e}d\u{9b}"), "a?[2Jb c?d?");
        assert_eq!(cleaned("Zürich – ok"), "Zürich – ok");
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let mut text = "ü".repeat(10);
        clean(&mut text, 5);
        assert_eq!(text, "üü");
    }

    #[test]
    fn user_and_password_leave_an_address_and_its_path_stays() {
        for (address, without) in [
            (
                "rest:https://user:pass@host:8000/repo",
                "rest:https://host:8000/repo",
            ),
            (
                "rest:https://user:p@ss@host:8000/repo",
                "rest:https://host:8000/repo",
            ),
            ("rest:http://user@host:8000/", "rest:http://host:8000/"),
            ("rest:https://user:p@host/a@b/", "rest:https://host/a@b/"),
            ("rest:https://user:pa/ss@host:8000/", "rest:https://host:8000/"),
            ("rest:https://nas:8000/a@b/", "rest:https://nas:8000/a@b/"),
            (
                "rest:https://[fd00::1]:8000/a@b/",
                "rest:https://[fd00::1]:8000/a@b/",
            ),
            (
                "https://outlook.office.com/webhook/g1@g2/x",
                "https://outlook.office.com/webhook/g1@g2/x",
            ),
            ("s3:https://host/bucket/path", "s3:https://host/bucket/path"),
            ("s3:host:9000/bucket", "s3:host:9000/bucket"),
            ("s3:host:9000/a@b", "s3:host:9000/a@b"),
            ("sftp:user@host:/srv/restic", "sftp:user@host:/srv/restic"),
            ("sftp:user:secret@host:/srv/a@b", "sftp:host:/srv/a@b"),
            ("sftp:user:sec/ret@host:/srv", "sftp:host:/srv"),
            ("sftp:host:/srv/a@b", "sftp:host:/srv/a@b"),
            ("sftp://user@host:2222//srv", "sftp://host:2222//srv"),
            ("local:/srv/a@b", "local:/srv/a@b"),
            ("/srv/restic", "/srv/restic"),
        ] {
            assert_eq!(without_credentials(address), without, "{address}");
            let marked = with_credentials_as(address, "gone");
            assert_eq!(marked != address, without != address, "{marked}");
            assert_eq!(marked.replace("gone@", ""), without);
        }
        let marked = with_credentials_as("rest:https://user:pass@host:8000/repo", "gone");
        assert_eq!(marked, "rest:https://gone@host:8000/repo");
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[!-~&&[^@/]]{8,40}") {
            let url = format!("rest:https://user:{password}@host/path");
            prop_assert!(!without_credentials(&url).contains(&password));
        }
    }
}
