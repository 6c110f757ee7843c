//! Every `fleet …` of the pages stands in the test that carries it out. That one needs clusters; this one says what it would
//! not find without them.

use regex::Regex;

use super::pages::root;
use super::typed::of_fleet;

const CHAPTERS: &str = "tests/tests/e2e/documented/chapters.rs";

/// The commands of a source file, each as what it may be once its placeholders are filled in.
fn commands(source: &str) -> Vec<Regex> {
    let literals = Regex::new(r#""(fleet [^"]*)""#).unwrap();
    let filled = Regex::new(r"\\\{\w*\\\}").unwrap();
    let found = literals.captures_iter(source).map(|found| {
        let literal = regex::escape(&found[1]);
        Regex::new(&format!("^{}$", filled.replace_all(&literal, ".*"))).unwrap()
    });
    found.collect()
}

#[test]
fn every_fleet_of_the_pages_stands_in_the_test_that_carries_it_out() {
    let known = commands(&std::fs::read_to_string(root().join(CHAPTERS)).unwrap());
    let documented = of_fleet();
    assert!(documented.len() > 80, "{} commands", documented.len());
    let missing = documented
        .iter()
        .filter(|(command, _)| !known.iter().any(|known| known.is_match(command)));
    let missing: Vec<String> = missing
        .map(|(command, pages)| format!("{command} of {pages:?} is not in {CHAPTERS}"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
