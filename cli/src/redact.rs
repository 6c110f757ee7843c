//! URLs of repositories without user and password.

/// As the operator shows them.
#[must_use]
pub fn url(url: &str) -> String {
    let Some((head, rest)) = url.split_once("://") else {
        return path(url);
    };
    // The last @: a password may hold one, and a slash as well.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{head}://{host}")
}

/// `sftp:user:password@host:/path`, and anything else with a password before an @.
fn path(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => format!("{scheme}:{host}"),
            _ => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_leave_the_url() {
        for (given, shown) in [
            (
                "rest:https://user:p@ss/w@host:8000/repo",
                "rest:https://host:8000/repo",
            ),
            ("s3:https://host/bucket/path", "s3:https://host/bucket/path"),
            ("sftp:user:secret@host:/srv", "sftp:host:/srv"),
            ("sftp:user@host:/srv/restic", "sftp:user@host:/srv/restic"),
            ("/srv/restic", "/srv/restic"),
        ] {
            assert_eq!(url(given), shown);
        }
    }
}
