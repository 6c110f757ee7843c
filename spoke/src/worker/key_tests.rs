use std::path::PathBuf;

use super::super::bench::Bench;
use super::*;

struct Rotation {
    bench: Bench,
    new: PathBuf,
    id: String,
}

impl Rotation {
    /// A repository that the password `p` opens, and a new password.
    async fn to(password: &str) -> Rotation {
        let bench = Bench::new();
        let new = bench.dir.path().join("new");
        std::fs::write(&new, password).unwrap();
        let config = words(&["cat", "config", "--no-lock", "--json"]);
        let printed = bench.restic.run(&config, Limit::Whole(OPEN)).await.unwrap();
        let id = output::config_id(&printed).unwrap();
        Rotation { bench, new, id }
    }

    fn order(&self) -> KeyRun {
        KeyRun {
            restic_id: self.id.clone(),
            ..KeyRun::default()
        }
    }

    async fn add(&self) -> OperationOutcome {
        run(&self.order(), self.bench.restic.clone(), &self.new).await
    }

    /// Removes a key with a password, which has to open `keep`.
    async fn remove(&self, key: &str, keep: &str, password: &str) -> OperationOutcome {
        let order = KeyRun {
            remove: key.to_owned(),
            keep: keep.to_owned(),
            ..self.order()
        };
        let restic = with_password(&self.bench.restic, password);
        run(&order, restic, &self.new).await
    }

    fn opens(&self, password: &str) -> bool {
        let mut command = self.bench.command(&["cat", "config", "--no-lock"]);
        let out = command.env(PASSWORD_VARIABLE, password).output().unwrap();
        assert!([Some(0), Some(12)].contains(&out.status.code()));
        out.status.success()
    }

    fn keys(&self) -> usize {
        std::fs::read_dir(self.bench.dir.path().join("repository/keys"))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn a_new_password_is_added_used_and_the_old_key_removed() {
    let rotation = Rotation::to("another one").await;
    let added = rotation.add().await;
    assert_eq!(added.result, "Applied", "{}", added.message);
    assert!(rotation.opens("p") && rotation.opens("another one"));
    let (old, new) = (added.old_key.as_str(), added.new_key.as_str());
    assert!(old.len() == 64 && new.len() == 64 && old != new);
    // With the password of before in the Secret the old key is the one in use.
    let early = rotation.remove(old, new, "p").await;
    assert_eq!(
        (early.result.as_str(), early.reason.as_str()),
        ("Failed", "KeyChanged")
    );
    assert_eq!(rotation.keys(), 2);
    let removed = rotation.remove(old, new, "another one").await;
    assert_eq!(removed.result, "Applied", "{}", removed.message);
    assert!(!rotation.opens("p") && rotation.opens("another one"));
    let again = rotation.remove(old, new, "another one").await;
    assert_eq!(again.result, "Applied", "as after a kill: {}", again.message);
    let text = [added, early, removed, again].map(|o| serde_json::to_string(&o).unwrap());
    assert!(text.iter().all(|text| !text.contains("another one")));
}

#[tokio::test]
async fn a_key_that_is_there_already_is_not_added_again() {
    let rotation = Rotation::to("new").await;
    // What a run does whose pod is killed right after restic, before it could report.
    let file = rotation.new.display().to_string();
    rotation.bench.well(&["key", "add", "--new-password-file", &file]);
    let added = rotation.add().await;
    assert_eq!(added.result, "Applied");
    assert!(added.message.contains("already"), "{}", added.message);
    assert_eq!(rotation.keys(), 2);
}

#[tokio::test]
async fn what_interrupts_a_step_leaves_a_repository_that_the_old_password_opens() {
    for (part, before, after) in [("add", 0, 0), ("add", 0, 1), ("remove", 1, 0), ("remove", 1, 1)] {
        let mut rotation = Rotation::to("new").await;
        let (mut old, mut new) = (String::new(), String::new());
        if before > 0 {
            let added = rotation.add().await;
            (old, new) = (added.old_key, added.new_key);
        }
        // restic is killed before it does its work, or after it.
        let work = if after > 0 { "$RESTIC \"$@\"; " } else { "" };
        rotation.bench.script(&format!(
            "case \"$*\" in \"key {part}\"*) {work}kill -9 $$;; esac\nexec $RESTIC \"$@\""
        ));
        let outcome = match before {
            0 => rotation.add().await,
            _ => rotation.remove(&old, &new, "new").await,
        };
        assert_ne!(outcome.result, "Applied", "{part} {after}");
        assert!(
            rotation.opens("p") || (part == "remove" && after > 0),
            "{part} {after}"
        );
        assert!(rotation.opens("new") || part == "add", "{part} {after}");
        // The next run goes on from there.
        rotation.bench.restic.program = super::super::bench::program();
        let outcome = match before {
            0 => rotation.add().await,
            _ => rotation.remove(&old, &new, "new").await,
        };
        assert_eq!(outcome.result, "Applied", "{part} {after}: {}", outcome.message);
        assert!(rotation.opens("new"));
        assert_eq!(rotation.opens("p"), part == "add");
    }
}

#[tokio::test]
async fn a_password_that_would_be_another_one_to_others_is_refused() {
    for (password, words) in [
        ("", "put the new password there"),
        (" a", "white space"),
        ("a\n", "white space"),
        ("a\nb", "several lines"),
        ("p", "the present one"),
    ] {
        let rotation = Rotation::to(password).await;
        let outcome = rotation.add().await;
        assert_eq!(outcome.reason, "NewPasswordUnusable", "{password:?}");
        assert!(outcome.message.contains(words), "{}", outcome.message);
        assert_eq!(rotation.keys(), 1);
    }
}

#[tokio::test]
async fn a_key_of_another_repository_is_left_alone() {
    let rotation = Rotation::to("new").await;
    let order = KeyRun {
        restic_id: "0".repeat(64),
        ..KeyRun::default()
    };
    let outcome = run(&order, rotation.bench.restic.clone(), &rotation.new).await;
    assert_eq!(outcome.reason, "RepositoryChanged");
    assert_eq!(rotation.keys(), 1);
}
