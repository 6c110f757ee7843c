//! Every `fleet …` line in a code block of README and docs is one that this CLI takes.

use clap::{CommandFactory as _, Parser as _};

use super::Arguments;

#[path = "../../../tests/tests/documents/pages.rs"]
mod pages;
#[path = "../../../tests/tests/documents/shell.rs"]
mod shell;

use self::pages::pages;
use self::shell::{code, commands};

fn ours(words: &[String]) -> bool {
    words.first().is_some_and(|first| first == "fleet")
}

#[test]
fn every_command_of_the_documentation_is_one() {
    let mut seen = 0;
    for (path, page) in pages(&["README.md"]) {
        // The list of all commands has alternatives and explanations, see below.
        if path.ends_with("cli.md") {
            continue;
        }
        for words in code(&page)
            .iter()
            .flat_map(|line| commands(line))
            .filter(|words| ours(words))
        {
            seen += 1;
            // What a page leaves out of a pin, and what a shell gives by itself.
            let mut given: Vec<String> = words
                .iter()
                .map(|word| word.replace('…', &"0".repeat(64)))
                .collect();
            let init = given[1..].starts_with(&["hub".to_owned(), "init".to_owned()]);
            if init && !given.iter().any(|word| word.starts_with("--admin")) {
                given.push("--admin=ann".to_owned());
            }
            if let Err(error) = Arguments::try_parse_from(&given) {
                panic!("{}: {}: {error}", path.display(), words.join(" "));
            }
        }
    }
    assert!(seen > 15, "only {seen} commands were found");
}

#[test]
fn the_list_of_commands_names_commands_and_flags_that_exist() {
    let (_, page) = pages(&["README.md"])
        .into_iter()
        .find(|(path, _)| path.ends_with("cli.md"))
        .unwrap();
    let mut seen = 0;
    for line in code(&page).iter().filter(|line| line.starts_with("fleet ")) {
        let mut command = Arguments::command();
        command.build();
        let first = line
            .split_whitespace()
            .nth(1)
            .and_then(|name| command.find_subcommand(name));
        let known = flags(first.unwrap_or_else(|| panic!("no such command: {line}")));
        for word in line.split_whitespace().skip(1) {
            let found = |name: &str| command.find_subcommand(name).cloned();
            let named: Vec<_> = word.split('|').map(found).collect();
            assert!(
                named.iter().all(Option::is_some) || named.iter().all(Option::is_none),
                "{word}: not all are commands: {line}"
            );
            match named.into_iter().next().flatten() {
                Some(one) => command = one,
                None => break,
            }
        }
        for word in line.split(|c: char| c.is_whitespace() || "[]|(),;:`".contains(c)) {
            if let Some(flag) = word.strip_prefix("--") {
                assert!(known.contains(&flag.to_owned()), "--{flag} is no flag: {line}");
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} commands were found");
}

/// Long flags of a command and of those below it.
fn flags(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long());
    let own = own.map(str::to_owned);
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

#[test]
fn words_are_taken_as_a_shell_takes_them() {
    let line = "  fleet clusters join \"$cluster\" -o yaml | kubectl apply -f -   # comment";
    let all = commands(line);
    assert_eq!(all[0], ["fleet", "clusters", "join", "$cluster", "-o", "yaml"]);
    assert_eq!(all[1], ["kubectl", "apply", "-f", "-"]);
    assert_eq!(commands("fleet pause --reason 'a b'")[0][3], "a b");
    let page = "text\n```\nfleet a \\\n  b\n```\nfleet no\n";
    assert_eq!(code(page), ["fleet a   b"]);
}
