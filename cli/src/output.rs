//! Where text goes: data to stdout, everything else to stderr. Colour and the width of a terminal only on a terminal.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use crate::failure::code;

/// States that a person has to look at, those that nobody knows about, and those that are well.
const RED: [&str; 15] = [
    "FAILED",
    "LATE",
    "NOT SAFE",
    "NOT WELL",
    "BAD",
    "UNREADY",
    "DAMAGED",
    "BANNED",
    "CONFLICT",
    "REFUSED",
    "RESTORE-FAILED",
    "POLICY-FAILED",
    "NOTREADY",
    "UNPROVEN",
    "EXPIRED",
];
const YELLOW: [&str; 10] = [
    "STALE",
    "NEVER",
    "UNKNOWN",
    "PARTIAL",
    "WAITING",
    "DEGRADED",
    "DELAYED",
    "PENDING",
    "NOTE",
    "SUSPENDED",
];
const GREEN: [&str; 8] = [
    "OK",
    "SAFE",
    "WELL",
    "GOOD",
    "READY",
    "CONNECTED",
    "DONE",
    "RUNNING",
];
/// A narrower terminal is taken for one of this width: less than this shows nothing.
const NARROWEST: usize = 40;

/// Writes data, and all of it at once. A reader that has seen enough (`| head`) ends the program as it asked to.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(&format!("fleet: cannot write the answer: {error}"));
            std::process::exit(code::UNKNOWN.into());
        }
    }
}

/// Writes a line of data.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes a line that is not data. Without a reader it is lost; the exit code stays.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes text for people: on a terminal as wide as that, unless it is to be whole, and with colours.
pub fn table(text: &str, whole: bool) {
    if !std::io::stdout().is_terminal() {
        return print(text);
    }
    let text = match size() {
        Some((columns, _)) if !whole => fit(text, columns),
        _ => text.to_owned(),
    };
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let plain = variable("NO_COLOR").is_some() || variable("TERM").is_some_and(|term| term == "dumb");
    print(&if plain { text } else { paint(&text) });
}

/// As many lines as a terminal shows, and how many are left out. All of them elsewhere.
#[must_use]
pub fn on_one_screen(text: &str) -> String {
    match size() {
        Some((_, rows)) if std::io::stdout().is_terminal() => first(text, rows.saturating_sub(1)),
        _ => text.to_owned(),
    }
}

/// Columns and rows of the terminal.
fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some((columns, rows))
}

fn first(text: &str, rows: usize) -> String {
    let all = text.lines().count();
    if all <= rows {
        return text.to_owned();
    }
    let shown = rows.saturating_sub(1);
    let lines: Vec<&str> = text.lines().take(shown).collect();
    format!("{}\n… and {} more\n", lines.join("\n"), all - shown)
}

/// Lines no wider than a terminal.
fn fit(text: &str, columns: usize) -> String {
    let columns = columns.max(NARROWEST);
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line.chars().count() > columns {
            out.extend(line.chars().take(columns - 1));
            out.push('…');
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Colours cells that are a state. Two spaces part cells.
fn paint(text: &str) -> String {
    let paint = |cell: &str| {
        let word = cell.trim();
        let colour = match word {
            _ if RED.contains(&word) => "31",
            _ if YELLOW.contains(&word) => "33",
            _ if GREEN.contains(&word) => "32",
            _ => return cell.to_owned(),
        };
        cell.replace(word, &format!("\x1b[{colour}m{word}\x1b[0m"))
    };
    let lines = text.lines().map(|line| {
        let cells: Vec<String> = line.split("  ").map(paint).collect();
        cells.join("  ")
    });
    let mut out = lines.collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_wider_than_the_terminal() {
        let text = fit(&format!("short\n{}\n", "ü".repeat(100)), 60);
        assert_eq!(text, format!("short\n{}…\n", "ü".repeat(59)));
        assert_eq!(fit(&"x".repeat(100), 1).chars().count(), NARROWEST + 1);
    }

    #[test]
    fn what_a_screen_leaves_out_is_counted() {
        assert_eq!(first("a\nb\nc\nd\n", 3), "a\nb\n… and 2 more\n");
        assert_eq!(first("a\nb\n", 2), "a\nb\n");
    }

    #[test]
    fn only_cells_that_are_a_state_have_a_colour_and_columns_stay() {
        let text = "NOT SAFE  1 failed\na/shop/FAILED   FAILED     OK then\n";
        let painted = paint(text);
        assert_eq!(
            painted,
            "\x1b[31mNOT SAFE\x1b[0m  1 failed\na/shop/FAILED   \x1b[31mFAILED\x1b[0m     OK then\n"
        );
        assert_eq!(paint("x  "), "x  ");
    }
}
