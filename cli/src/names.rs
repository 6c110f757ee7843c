//! What this program is called: `fleet`, or `kubectl fleet` as a plugin of kubectl.

use std::ffi::OsString;
use std::path::Path;

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use crate::arguments::Arguments;

/// The file name by which kubectl finds a plugin.
const PLUGIN: &str = "kubectl-fleet";

/// How it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Fleet,
    Plugin,
}

impl Program {
    /// By the first argument of the process.
    #[must_use]
    pub fn started() -> Program {
        Program::of(std::env::args_os().next())
    }

    fn of(first: Option<OsString>) -> Program {
        let first = first.unwrap_or_default();
        let file = Path::new(&first).file_stem().unwrap_or_default();
        if file == PLUGIN {
            Program::Plugin
        } else {
            Program::Fleet
        }
    }

    /// The name of the file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Program::Fleet => "fleet",
            Program::Plugin => PLUGIN,
        }
    }

    /// Its command line; usage texts show what a person types.
    #[must_use]
    pub fn command(self) -> Command {
        let command = Arguments::command();
        match self {
            Program::Fleet => command,
            Program::Plugin => command.bin_name("kubectl fleet").name("kubectl fleet"),
        }
    }

    /// What is asked for. A line that cannot be read ends the program with its usage text.
    #[must_use]
    pub fn parse(self) -> Arguments {
        let matches = self.command().get_matches();
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_plugin_it_is_called_as_a_person_types_it() {
        let of = |first: &str| Program::of(Some(first.into()));
        assert_eq!(of("/usr/local/bin/kubectl-fleet"), Program::Plugin);
        assert_eq!(of("fleet"), Program::Fleet);
        assert_eq!(Program::of(None), Program::Fleet);
        let usage = Program::Plugin.command().render_usage().to_string();
        assert!(usage.contains("Usage: kubectl fleet "), "{usage}");
        let mut command = Program::Plugin.command();
        command.build();
        let why = command
            .find_subcommand_mut("why")
            .map(|of| of.render_usage().to_string());
        assert!(why.is_some_and(|usage| usage.contains("kubectl fleet why")));
    }

    #[test]
    fn the_command_line_holds_together() {
        Program::Fleet.command().debug_assert();
        Program::Plugin.command().debug_assert();
    }
}
