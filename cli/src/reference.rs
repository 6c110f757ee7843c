//! docs/cli.md, out of the command line itself. What stands above the mark in the page is written by hand.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

/// What follows is made anew.
pub const MARK: &str = "<!-- What follows is generated: make gen -->";

/// The part of the page that is generated.
#[must_use]
pub fn page(mut command: Command) -> String {
    command.build();
    let mut out = format!("{MARK}\n\n## Commands\n");
    let _ = writeln!(out, "\nEvery command takes these:\n");
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    table(&mut out, global);
    for sub in visible(&command) {
        section(&mut out, sub, "fleet", 3);
    }
    out
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let of = command.get_subcommands().filter(|of| !of.is_hide_set());
    of.filter(|of| of.get_name() != "help")
}

fn section(out: &mut String, command: &Command, before: &str, level: usize) {
    let name = format!("{before} {}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(|about| ended(about.to_string())).unwrap_or_default();
    let _ = writeln!(out, "\n{} {name}\n\n{}", "#".repeat(level), escaped(&about));
    let aliases: Vec<&str> = command.get_all_aliases().collect();
    if !aliases.is_empty() {
        let _ = writeln!(out, "\nAlso: {}", aliases.join(", "));
    }
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help")
        .collect();
    let subcommands = visible(command).count();
    if subcommands == 0 || !own.is_empty() {
        let _ = writeln!(out, "\n```\n{}\n```", usage(&name, command));
    }
    if !own.is_empty() {
        out.push('\n');
        table(out, own.into_iter());
    }
    for sub in visible(command) {
        section(out, sub, &name, (level + 1).min(5));
    }
}

/// Positional arguments in their order; what is needed stands without brackets.
fn usage(name: &str, command: &Command) -> String {
    let mut usage = name.to_owned();
    let flags = command
        .get_opts()
        .any(|arg| !arg.is_global_set() && arg.get_id() != "help");
    if flags
        || command
            .get_arguments()
            .any(|arg| !arg.is_positional() && !arg.is_global_set())
    {
        usage.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let value = values(arg).join(" ");
        let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        let dots = if many { "..." } else { "" };
        let _ = match arg.is_required_set() {
            true => write!(usage, " <{value}>{dots}"),
            false => write!(usage, " [{value}]{dots}"),
        };
    }
    usage
}

fn values(arg: &Arg) -> Vec<String> {
    let names = arg.get_value_names().unwrap_or_default();
    match names.is_empty() {
        true => vec![arg.get_id().as_str().to_uppercase()],
        false => names.iter().map(ToString::to_string).collect(),
    }
}

fn table<'a>(out: &mut String, args: impl Iterator<Item = &'a Arg>) {
    out.push_str("| argument | |\n|---|---|\n");
    for arg in args.filter(|arg| arg.get_id() != "help" && arg.get_id() != "version") {
        let _ = writeln!(out, "| {} | {} |", flag(arg), escaped(&says(arg)));
    }
}

/// `-o`, `--output OUTPUT`
fn flag(arg: &Arg) -> String {
    if arg.is_positional() {
        return format!("`{}`", values(arg).join(" "));
    }
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let value = if takes {
        format!(" {}", values(arg).join(" "))
    } else {
        String::new()
    };
    let short = arg
        .get_short()
        .map(|short| format!("`-{short}`, "))
        .unwrap_or_default();
    format!("{short}`--{}{value}`", arg.get_long().unwrap_or_default())
}

fn says(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let mut says = help.map(|help| ended(help.to_string())).unwrap_or_default();
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    // Where the sentence names them already, once is enough.
    let named = possible
        .iter()
        .all(|value| says.contains(value.trim_matches('`')));
    if takes && !possible.is_empty() && !named {
        let _ = write!(says, " One of {}.", possible.join(", "));
    }
    let default: Vec<String> = arg
        .get_default_values()
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes && !default.is_empty() {
        let _ = write!(says, " {} unless given.", default.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(says, " Variable `{}`.", variable.to_string_lossy());
    }
    says
}

/// A sentence: clap takes the last point away.
fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with(['.', ':', '?', ')']) {
        text.push('.');
    }
    text
}

/// Fit for a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
        .replace(['<', '>'], "")
        .replace('\n', " ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::names::Program;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");

    /// `FLEET_WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_is_of_this_command_line() {
        let made = page(Program::Fleet.command());
        let is = std::fs::read_to_string(PATH).unwrap();
        let (by_hand, rest) = is.split_once(MARK).expect("the page has the mark");
        if std::env::var_os("FLEET_WRITE_DOCS").is_some() {
            std::fs::write(PATH, format!("{by_hand}{made}")).unwrap();
            return;
        }
        assert!(
            format!("{MARK}{rest}") == made,
            "docs/cli.md is out of date: make gen"
        );
    }

    #[test]
    fn each_command_and_each_argument_says_what_it_is() {
        fn look(command: &Command, missing: &mut Vec<String>) {
            for sub in visible(command) {
                if sub.get_about().is_none() {
                    missing.push(sub.get_name().to_owned());
                }
                look(sub, missing);
            }
            let named = command.get_arguments().filter(|arg| arg.get_help().is_none());
            missing.extend(named.map(|arg| format!("{}: {}", command.get_name(), arg.get_id())));
        }
        let mut missing = Vec::new();
        let mut command = Program::Fleet.command();
        command.build();
        look(&command, &mut missing);
        missing.retain(|name| !name.starts_with("help"));
        assert_eq!(missing, Vec::<String>::new());
    }
}
