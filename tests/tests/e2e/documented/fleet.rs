//! Every `fleet …` of README and docs is carried out, with a repository, a backup and a policy in namespace `shop` of cluster
//! b. What a page leaves to the reader is filled in. Commands that need another world name the test that has it. A command
//! that is on a page and not here fails the test, and so does one that is here and on no page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::{command, run_to_end};

use super::typed::of_fleet;
use super::{chapters, pages, shell};
use crate::faults::until;
use crate::retention::{make_snapshots, policy, repository_id};
use crate::support::{Place, SOON, bed, s3};

const NAMESPACE: &str = "shop";

/// What is left to be carried out, and where.
pub struct Story {
    left: BTreeMap<String, BTreeSet<String>>,
    /// Files that commands write, and the only login that they know.
    pub dir: PathBuf,
    kubeconfig: PathBuf,
    wrong: Vec<String>,
}

impl Story {
    /// What a command printed, on both outputs.
    pub fn run(&mut self, documented: &str, typed: &str, ends: &[i32], says: &str) -> String {
        assert!(!says.is_empty(), "{documented}: nothing is looked for");
        let pages = self.take(documented);
        let output = self.execute(typed);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let code = output.status.code().unwrap_or(-1);
        if !ends.contains(&code) || !text.contains(says) {
            self.wrong.push(format!(
                "{documented} ({pages}), typed as {typed}: exit code {code} where {ends:?} was expected, \
                 and `{says}` in: {text}"
            ));
        }
        text
    }

    /// A command that is carried out as it stands.
    pub fn is(&mut self, documented: &str, says: &str) -> String {
        self.run(documented, documented, &[0], says)
    }

    /// A command for which the reader fills something in.
    pub fn filled(&mut self, documented: &str, typed: &str, says: &str) -> String {
        self.run(documented, typed, &[0], says)
    }

    /// A command of who has nothing but a login.
    pub fn alone(&mut self, documented: &str, typed: &str, says: &str) {
        let bare = ["FLEET_HUB", "FLEET_CA", "FLEET_CERT", "FLEET_KEY"].map(|name| format!("-u {name}"));
        self.run(documented, &format!("env {} {typed}", bare.join(" ")), &[0], says);
    }

    /// A command that goes on until somebody interrupts it, which is done once it has printed this.
    pub fn interrupted(&mut self, documented: &str, says: &str) {
        let pages = self.take(documented);
        let file = self.dir.join("watched");
        let mut command = self.command(documented);
        command.stdout(std::fs::File::create(&file).unwrap());
        let mut child = command.spawn().unwrap();
        let end = Instant::now() + SOON;
        let printed = || std::fs::read_to_string(&file).unwrap();
        while !printed().contains(says) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let text = printed();
        if !text.contains(says) {
            self.wrong
                .push(format!("{documented} ({pages}): `{says}` in: {text}"));
        }
    }

    /// Carried out by a test in `file`. Not proven but for these words, which that test cannot do without.
    pub fn elsewhere(&mut self, documented: &[&str], file: &str, words: &[&str]) {
        for documented in documented {
            self.take(documented);
        }
        let text = std::fs::read_to_string(pages::root().join(file)).unwrap();
        for word in words {
            if !text.contains(word) {
                self.wrong.push(format!(
                    "{file} does not carry out {documented:?}: it has no {word}"
                ));
            }
        }
    }

    fn take(&mut self, documented: &str) -> String {
        let Some(pages) = self.left.remove(documented) else {
            self.wrong
                .push(format!("{documented} is on no page, or carried out twice"));
            return String::new();
        };
        pages.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// One line as a shell takes it, with the bed's login.
    fn execute(&self, typed: &str) -> Output {
        run_to_end(bed(), self.command(typed)).unwrap()
    }

    /// What a command prints as JSON, whatever its exit code says.
    pub fn json(&self, typed: &str) -> Value {
        serde_json::from_slice(&self.execute(&format!("{typed} -o json")).stdout).unwrap()
    }

    fn command(&self, typed: &str) -> Command {
        let words = shell::commands(typed).swap_remove(0);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = command(bed(), words[0], &words[1..]);
        command
            .current_dir(&self.dir)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("FLEET_CONTEXTS", self.dir.join("contexts.json"));
        command
    }
}

/// A backup that has run, a policy whose first plan waits for a person, and a repository to check.
fn shop() -> Place {
    let (place, url) = (Place::new("b", NAMESPACE), s3(0, NAMESPACE));
    let repository = json!({ "name": "nas" });
    let mut nas = place.repository("nas", &url);
    nas["spec"]["integrityCheck"] = json!({ "schedule": "@yearly" });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    place.apply(&[
        nas,
        place.backup("orders", repository.clone(), json!({})),
        place.backup("orders-data", repository, json!({ "suspend": true })),
        policy("nightly", keep, json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    make_snapshots(&url, "b", "shop/orders", "old", 1..4);
    place
}

#[test]
#[ignore = "needs clusters: make test"]
fn every_fleet_of_the_pages_is_carried_out() {
    let place = shop();
    let dir = tempfile::tempdir().unwrap();
    let mut story = Story {
        left: of_fleet(),
        dir: dir.path().to_owned(),
        kubeconfig: place.cluster.kubeconfig(),
        wrong: Vec::new(),
    };
    let id = repository_id(&place);
    until("the backup in the hub", || {
        let found = tests::fleet::shell(bed(), "fleet", &["get", "b/shop/orders"], &[]);
        found.is_ok_and(|output| output.status.success())
    });
    chapters::looks(&mut story, &id);
    chapters::runs(&mut story, &place);
    chapters::files(&mut story);
    chapters::plans(&mut story, &place);
    chapters::holds(&mut story);
    chapters::people(&mut story);
    chapters::clusters(&mut story);
    chapters::worlds(&mut story);
    chapters::put_back(&mut story);
    let left = story
        .left
        .iter()
        .map(|(command, pages)| format!("{command} of {pages:?} is carried out by nobody"));
    let wrong: Vec<String> = story.wrong.iter().cloned().chain(left).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
