//! How many operations are at work on one storage host: its places go to those that have waited longest. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::grantor::Instant;

/// Services that many machines stand behind: their name says nothing about one host.
const SERVICES: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "backblazeb2.com",
    "cloudflarestorage.com",
    "digitaloceanspaces.com",
    "googleapis.com",
    "linodeobjects.com",
    "scw.cloud",
    "wasabisys.com",
];

/// What a repository's lock does for its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// An operation that takes a place holds the lock, or is about to.
    Works,
    /// One could begin; since when the first of them waits.
    Waits(Instant),
    /// Neither, or what waits needs no place.
    Apart,
}

/// A repository that may need a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub id: Arc<str>,
    /// `None` where it is not known: such a repository is not bounded.
    pub host: Option<String>,
    pub stand: Stand,
}

/// The host that a repository's URL names, with its port; `None` where it names none, or a service of many hosts.
#[must_use]
pub fn host(url: &str) -> Option<String> {
    let (back_end, rest) = url.split_once(':')?;
    let path = |rest: &str| rest.split('/').next().unwrap_or_default().to_owned();
    let authority = match back_end {
        "s3" | "rest" => path(rest.split_once("://").map_or(rest, |(_, rest)| rest)),
        "sftp" => match rest.strip_prefix("//") {
            Some(rest) => path(rest),
            // user@host:/path, or user@[::1]:/path
            None => rest.rsplit_once(":/").map(|(host, _)| host.to_owned())?,
        },
        _ => return None,
    };
    let host = authority.rsplit('@').next()?.to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let name = host.split(':').next().unwrap_or_default();
    let of = |service: &&str| {
        let rest = name.strip_suffix(*service);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let proper = !host.is_empty() && host.chars().all(plain) && !SERVICES.iter().any(of);
    proper.then_some(host)
}

/// Repositories whose operations wait for a place, with the reason in one sentence. `places` of one host; 0 bounds nothing.
#[must_use]
pub fn crowded(places: usize, repositories: &[Standing]) -> BTreeMap<Arc<str>, String> {
    if places == 0 {
        return BTreeMap::new();
    }
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiting = Vec::new();
    for Standing { id, host, stand } in repositories {
        let Some(host) = host.as_deref() else { continue };
        match stand {
            Stand::Works => *taken.entry(host).or_default() += 1,
            Stand::Waits(since) => waiting.push((*since, id, host)),
            Stand::Apart => {}
        }
    }
    let at_work = taken.clone();
    waiting.sort_unstable();
    let mut crowded = BTreeMap::new();
    for (_, id, host) in waiting {
        let taken = taken.entry(host).or_default();
        if *taken < places {
            *taken += 1;
            continue;
        }
        let count = at_work.get(host).copied().unwrap_or_default();
        let text = match count {
            0 => format!("it waits for a place: others are before it on host {host}"),
            1 => format!("it waits for a place: 1 operation is at work on host {host}"),
            count => format!("it waits for a place: {count} operations are at work on host {host}"),
        };
        crowded.insert(id.clone(), text);
    }
    crowded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_or_a_service_of_many() {
        for (url, expected) in [
            ("s3:https://Minio.lab:9000/bucket", Some("minio.lab:9000")),
            ("s3:minio.lab/bucket", Some("minio.lab")),
            ("rest:https://nas:8000/b/", Some("nas:8000")),
            ("rest:http://user@nas:8000/", Some("nas:8000")),
            ("sftp:backup@nas:/srv/restic", Some("nas")),
            ("sftp:backup@[fd00::1]:/srv", Some("[fd00::1]")),
            ("sftp://backup@nas:2222//srv", Some("nas:2222")),
            ("s3:s3.amazonaws.com/bucket", None),
            ("s3:https://s3.eu-central-1.amazonaws.com/bucket", None),
            ("s3:https://notamazonaws.com/bucket", Some("notamazonaws.com")),
            ("b2:bucket:path", None),
            ("azure:container:/", None),
            ("gs:bucket:/", None),
            ("rclone:remote:path", None),
            ("sftp:nas", None),
            ("s3:", None),
            ("rest:https:///b", None),
            ("", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }

    fn standing(id: &str, host: &str, stand: Stand) -> Standing {
        Standing {
            id: id.into(),
            host: (!host.is_empty()).then(|| host.to_owned()),
            stand,
        }
    }

    fn ids(places: usize, repositories: &[Standing]) -> Vec<String> {
        let crowded = crowded(places, repositories);
        crowded.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_full_host_holds_up_its_own_repositories_and_no_others() {
        use Stand::{Apart, Waits, Works};
        let all = [
            standing("a", "one", Works),
            standing("b", "one", Works),
            standing("c", "one", Waits(5)),
            standing("d", "two", Waits(9)),
            standing("e", "", Waits(1)),
            standing("f", "one", Apart),
        ];
        assert_eq!(ids(2, &all), ["c"]);
        let text = &crowded(2, &all)["c"];
        assert_eq!(text, "it waits for a place: 2 operations are at work on host one");
        assert_eq!(ids(3, &all), [""; 0]);
        assert_eq!(ids(0, &all), [""; 0], "not bounded");
        // More than there are places, as after the bound was lowered.
        assert_eq!(ids(1, &all), ["c"]);
    }

    #[test]
    fn who_waits_longest_gets_the_place() {
        use Stand::Waits;
        let all = [
            standing("a", "one", Waits(30)),
            standing("b", "one", Waits(10)),
            standing("c", "one", Waits(20)),
            standing("d", "one", Waits(20)),
        ];
        assert_eq!(ids(1, &all), ["a", "c", "d"]);
        assert_eq!(ids(2, &all), ["a", "d"], "the id decides between equals");
        assert_eq!(ids(4, &all), [""; 0]);
    }
}
