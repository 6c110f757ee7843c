//! Where text goes: data to stdout, everything else to stderr.

use std::io::{ErrorKind, Write as _};

use crate::failure::code;

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
