use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::metrics::Metrics;
use crate::restic::{Executor, Statistics};
use crate::secrets::Backend;

/// Answers as configured, and records whether `init` was ever called.
struct Scripted {
    id: Result<String, Failure>,
    calls: Mutex<Vec<&'static str>>,
    /// How often `init` finds no process free in time.
    busy: Mutex<usize>,
}

impl Restic for Scripted {
    fn id<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        self.calls.lock().unwrap().push("id");
        std::future::ready(self.id.clone()).boxed()
    }
    fn init<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        self.calls.lock().unwrap().push("init");
        let mut busy = self.busy.lock().unwrap();
        if *busy > 0 {
            *busy -= 1;
            return std::future::ready(Err(Failure::NotBegun)).boxed();
        }
        std::future::ready(Ok("a".repeat(64))).boxed()
    }
    fn statistics<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Statistics, Failure>> {
        std::future::ready(Ok(Statistics::default())).boxed()
    }
    fn locks<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    fn lock<'a>(
        &'a self,
        _: &'a Credentials,
        _: &'a str,
    ) -> BoxFuture<'a, Result<crate::restic::locks::LockFile, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn snapshots<'a>(
        &'a self,
        _: &'a Credentials,
    ) -> BoxFuture<'a, Result<Vec<crate::restic::Snapshot>, Failure>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}

fn credentials(url: &str, password: &str) -> Credentials {
    Credentials {
        backend: Backend::of(url).unwrap(),
        url: url.to_owned(),
        password: password.to_owned(),
        variables: BTreeMap::new(),
        files: BTreeMap::new(),
        options: Vec::new(),
        file_variables: BTreeMap::new(),
    }
}

#[tokio::test]
async fn no_failure_but_a_missing_repository_leads_to_init() {
    let text = || "x".to_owned();
    let failures = [
        Failure::WrongPassword,
        Failure::Locked(text()),
        Failure::Unreachable(text()),
        Failure::Forbidden(text()),
        Failure::Damaged(text()),
        Failure::Exists,
        Failure::DeadlineExceeded(std::time::Duration::from_secs(1)),
        Failure::Interrupted,
        Failure::Other(text()),
    ];
    for failure in failures {
        let restic = Scripted {
            id: Err(failure.clone()),
            calls: Mutex::default(),
            busy: Mutex::default(),
        };
        assert_eq!(
            look(
                &restic,
                &credentials("local:/x", "p"),
                (Expected::AnyOrNew, true),
                &Creations::new(false)
            )
            .await,
            Answer::Failed(failure)
        );
        assert_eq!(*restic.calls.lock().unwrap(), ["id"]);
    }
    let restic = Scripted {
        id: Err(Failure::NoRepository),
        calls: Mutex::default(),
        busy: Mutex::default(),
    };
    assert!(matches!(
        look(
            &restic,
            &credentials("local:/x", "p"),
            (Expected::Known(text()), true),
            &Creations::new(false)
        )
        .await,
        Answer::Missing { .. }
    ));
    assert_eq!(
        *restic.calls.lock().unwrap(),
        ["id"],
        "a repository that was there before is not created anew"
    );
    let (none, creations) = (credentials("local:/x", "p"), Creations::new(false));
    let answer = look(&restic, &none, (Expected::Any, true), &creations).await;
    assert_eq!(answer, Answer::Absent);
    assert_eq!(*restic.calls.lock().unwrap(), ["id", "id"], "initialize: Never");
}

/// The real restic on a real folder.
async fn executor(cache: &Path) -> Executor {
    use clap::Parser as _;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/restic");
    let program = if built.exists() {
        built
    } else {
        PathBuf::from("restic")
    };
    let arguments = [
        "x",
        "--restic",
        program.to_str().unwrap(),
        "--cache-dir",
        cache.to_str().unwrap(),
        "--probe-deadline",
        "8s",
    ];
    let config = crate::arguments::Arguments::parse_from(arguments).config;
    Executor::start(&config, "a", Arc::new(Metrics::new().unwrap()))
        .await
        .expect("restic 0.18: run `make restic` first")
}

/// Every file below a folder with its content.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(tree(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[tokio::test]
async fn a_creation_that_was_not_begun_in_time_takes_another_turn() {
    for (busy, begun) in [(TURNS - 1, true), (TURNS, false)] {
        let restic = Scripted {
            id: Err(Failure::NoRepository),
            calls: Mutex::default(),
            busy: Mutex::new(busy),
        };
        let good = credentials("local:/x", "x");
        let answer = look(&restic, &good, (Expected::AnyOrNew, true), &Creations::new(false)).await;
        let made = matches!(
            answer,
            Answer::Open {
                initialized: true,
                ..
            }
        );
        assert_eq!(made, begun, "{answer:?}");
        assert!(
            begun || matches!(answer, Answer::Failed(Failure::NotBegun)),
            "{answer:?}"
        );
        // Each turn begins with a look: another cluster may have been quicker.
        let calls = restic.calls.lock().unwrap();
        assert_eq!(calls[1..].chunks(2).next(), Some(["id", "init"].as_slice()));
        assert_eq!(calls.iter().filter(|call| **call == "init").count(), TURNS);
    }
}

#[tokio::test]
async fn a_real_repository_is_created_once_and_never_over_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, place) = (dir.path().join("cache"), dir.path().join("repository"));
    let restic = executor(&cache).await;
    let url = format!("local:{}", place.display());
    let good = credentials(&url, "right horse");

    let Answer::Open {
        id,
        initialized: true,
        statistics: Some(Ok(figures)),
    } = look(&restic, &good, (Expected::AnyOrNew, true), &Creations::new(false)).await
    else {
        panic!("an empty place becomes a repository");
    };
    assert_eq!(figures.snapshots, 0);
    let before = tree(&place);
    assert!(matches!(
        look(
            &restic,
            &good,
            (Expected::Known(id.clone()), true),
            &Creations::new(false)
        )
        .await,
        Answer::Open {
            initialized: false,
            ..
        }
    ));

    assert_eq!(
        look(
            &restic,
            &credentials(&url, "wrong"),
            (Expected::AnyOrNew, true),
            &Creations::new(false)
        )
        .await,
        Answer::Failed(Failure::WrongPassword)
    );
    assert_eq!(tree(&place), before, "a wrong password changes nothing");

    let config = place.join("config");
    let whole = std::fs::read(&config).unwrap();
    let mut bytes = whole.clone();
    bytes[40] ^= 0xff;
    make_writable(&config);
    std::fs::write(&config, &bytes).unwrap();
    let damaged = tree(&place);
    let answer = look(&restic, &good, (Expected::AnyOrNew, true), &Creations::new(false)).await;
    assert!(
        matches!(answer, Answer::Failed(Failure::Damaged(_))),
        "{answer:?}"
    );
    assert_eq!(tree(&place), damaged, "a corrupt config changes nothing");

    std::fs::write(&config, whole).unwrap();
    assert!(matches!(
        look(
            &restic,
            &good,
            (Expected::Known(id.clone()), true),
            &Creations::new(false)
        )
        .await,
        Answer::Open {
            initialized: false,
            ..
        }
    ));

    std::fs::rename(&place, dir.path().join("away")).unwrap();
    assert_eq!(
        look(
            &restic,
            &good,
            (Expected::Known(id.clone()), true),
            &Creations::new(false)
        )
        .await,
        Answer::Missing { id }
    );
    assert!(!place.exists(), "a repository that is gone is not created anew");
}

#[tokio::test]
async fn an_unreachable_server_is_found_out_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let restic = executor(dir.path()).await;
    let start = std::time::Instant::now();
    let answer = look(
        &restic,
        &credentials("rest:http://user:hidden-word@127.0.0.1:9/x", "pw"),
        (Expected::AnyOrNew, true),
        &Creations::new(false),
    )
    .await;
    let Answer::Failed(Failure::Unreachable(message)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        message.contains("connection refused") && !message.contains("hidden-word"),
        "{message}"
    );
    assert!(
        start.elapsed() < std::time::Duration::from_secs(20),
        "restic itself would retry for 15 minutes"
    );
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn with_never_an_empty_place_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, place) = (dir.path().join("cache"), dir.path().join("mistyped"));
    std::fs::create_dir(&place).unwrap();
    let restic = executor(&cache).await;
    let good = credentials(&format!("local:{}", place.display()), "right horse");
    let answer = look(&restic, &good, (Expected::Any, true), &Creations::new(false)).await;
    assert_eq!(answer, Answer::Absent);
    let (reason, text) = answer.reason();
    assert_eq!(reason, "RepositoryMissing");
    assert!(text.contains("spec.initialize: Never"), "{text}");
    assert!(tree(dir.path().join("mistyped").as_path()).is_empty());
}

/// A repository whose own key restic does not find, and the id of that: it reads keys in the order of the folder and ends at
/// one that it cannot read.
async fn lost_among_keys(restic: &Executor, dir: &Path) -> (Credentials, String) {
    // The order follows from the names, and that of the own key differs each time: it comes first in one of 26.
    for attempt in 0..10 {
        let place = dir.join(format!("repository-{attempt}"));
        let good = credentials(&format!("local:{}", place.display()), "right horse");
        restic.init(&good).await.unwrap();
        let key = restic.key_id(&good).await.unwrap();
        assert_eq!(key.len(), 64);
        for other in 0..25 {
            std::fs::write(place.join("keys").join(format!("{other:064}")), "{").unwrap();
        }
        if restic.id(&good).await.is_err() {
            return (good, key);
        }
    }
    panic!("restic has found the own key each time");
}

#[tokio::test]
async fn the_key_that_is_hinted_at_is_tried_before_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let restic = executor(&dir.path().join("cache")).await;
    let (mut good, key) = lost_among_keys(&restic, dir.path()).await;
    good.variables.insert("RESTIC_KEY_HINT".to_owned(), key.clone());
    assert!(restic.id(&good).await.is_ok());
    assert_eq!(restic.key_id(&good).await, Ok(key));
}

#[tokio::test]
async fn a_lock_that_is_held_for_a_probe_shows_to_others_and_leaves_neither_lock_nor_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("repository");
    let (restic, other) = (
        Arc::new(executor(&dir.path().join("cache")).await),
        executor(&dir.path().join("other-cache")).await,
    );
    let credentials = credentials(&format!("local:{}", place.display()), "right horse");
    restic.init(&credentials).await.unwrap();
    let (held, shows) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let work = {
        let (restic, credentials) = (restic.clone(), credentials.clone());
        tokio::spawn(async move { restic.hold(&credentials, held, ended).await })
    };
    let id = shows.await.unwrap();
    assert_eq!(
        other.locks(&credentials).await.unwrap(),
        std::slice::from_ref(&id)
    );
    let file = other.lock(&credentials, &id).await.unwrap();
    assert!(!file.exclusive, "{file:?}");
    end.send(()).unwrap();
    assert_eq!(work.await.unwrap(), Ok(()));
    assert_eq!(other.locks(&credentials).await.unwrap(), [""; 0]);
    assert_eq!(other.snapshots(&credentials).await.unwrap(), []);

    // One that cannot be held says why.
    let (held, shows) = tokio::sync::oneshot::channel();
    let (_end, ended) = tokio::sync::oneshot::channel();
    let nowhere = self::credentials(&format!("local:{}", dir.path().join("none").display()), "x");
    assert!(restic.hold(&nowhere, held, ended).await.is_err());
    assert!(shows.await.is_err());
}
