//! The rule language against restic itself: what the parser takes, restic takes, and what restic refuses, the parser
//! refuses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;

use crds::rules::{Rule, Span};

use crate::weak_key;

struct Repository(tempfile::TempDir);

impl Repository {
    /// One snapshot, without tags.
    fn create() -> Repository {
        let repository = Repository(tempfile::tempdir().unwrap());
        weak_key::repository(&repository.place());
        let file = repository.0.path().join("file");
        std::fs::write(&file, "x").unwrap();
        repository
            .restic(&["backup", &file.display().to_string()])
            .unwrap();
        repository
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("r")
    }

    fn restic(&self, arguments: &[&str]) -> Result<(), String> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin");
        let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());
        let output = Command::new("restic")
            .args(["--no-cache", "-q", "-r"])
            .arg(self.place())
            .args(arguments)
            .env("RESTIC_PASSWORD", "p")
            .env("PATH", path)
            .output()
            .expect("restic; make restic builds it");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(told)
    }

    fn forget(&self, rule: &[&str]) -> Result<(), String> {
        let dry_run = ["forget", "--dry-run", "--no-lock", "--json"];
        self.restic(&[&dry_run[..], rule].concat())
    }
}

/// Taken by restic, and refused by the parser, because their writer cannot have meant what restic does with them.
const STRICTER: [&str; 5] = ["1y1y", "5d ", " 5d", "1234567d", "1d2h3d"];

#[test]
fn restic_takes_the_spans_that_the_parser_takes_and_no_others() {
    let repository = Repository::create();
    let numbers = ["", "0", "1", "07", "999999"];
    let units = ["y", "m", "d", "h", "w", "M", "s", ""];
    let one = numbers
        .iter()
        .flat_map(|n| units.iter().map(move |u| format!("{n}{u}")));
    let two = [
        "1d2y", "1y2m3d4h", "4h3d2m1y", "1y2w", "1d2", "1d-2h", "-1d", "+1d", "1.5d", "٣d", "1 d", "1d,2h",
        "1D",
    ];
    let two = two.into_iter().map(str::to_owned);
    let spans: Vec<String> = one.chain(two).filter(|span| !span.is_empty()).collect();
    for span in &spans {
        let answer = repository.forget(&["--keep-last=1", &format!("--keep-within-daily={span}")]);
        assert_eq!(
            answer.is_ok(),
            Span::from_str(span).is_ok(),
            "{span:?}: {answer:?}"
        );
    }
    for span in STRICTER {
        repository.forget(&[&format!("--keep-within={span}")]).unwrap();
        assert!(Span::from_str(span).is_err(), "{span:?}");
    }
}

#[test]
fn restic_refuses_the_rules_that_the_parser_refuses() {
    let repository = Repository::create();
    let gold = ["gold".to_owned()];
    let zero = Rule {
        spans: ["0d", "", "", "", "", ""],
        ..Rule::default()
    };
    assert!(zero.check().is_err());
    assert!(
        repository
            .forget(&["--keep-within=0d"])
            .unwrap_err()
            .contains("no policy was specified")
    );
    let tags = Rule {
        keep_tags: &gold,
        ..Rule::default()
    };
    assert!(tags.check().is_err());
    let refused = repository.forget(&["--keep-tag=gold"]).unwrap_err();
    assert!(refused.contains("refusing to delete last snapshot"), "{refused}");
    let both = Rule {
        counts: [1, 0, 0, 0, 0, 0],
        ..tags
    };
    assert_eq!(both.check(), Ok(()));
    repository.forget(&["--keep-tag=gold", "--keep-last=1"]).unwrap();
}
