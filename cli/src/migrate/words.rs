//! Command lines in scripts, as far as they can be understood without running them. Pure.

use std::collections::BTreeMap;

/// The simple commands of a script, one after the other, with `$NAME` replaced by what is known of it.
///
/// # Errors
/// What only a shell could understand.
pub fn commands(script: &str, variables: &BTreeMap<String, String>) -> Result<Vec<Vec<String>>, String> {
    let mut reader = Reader {
        variables,
        commands: vec![Vec::new()],
        word: None,
    };
    let mut rest = script.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => reader.quoted(&mut rest)?,
            '"' => reader.double(&mut rest)?,
            '\\' => match rest.next() {
                Some('\n') => {}
                next => reader.push(next.ok_or("it ends in a backslash")?),
            },
            '$' => {
                let value = reader.variable(&mut rest)?;
                value.chars().for_each(|c| reader.push(c));
            }
            '#' if reader.word.is_none() => while rest.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' => reader.end_command(),
            '&' if rest.next_if_eq(&'&').is_some() => reader.end_command(),
            '|' if rest.next_if_eq(&'|').is_some() => reader.end_command(),
            '&' | '|' | '<' | '>' | '(' | ')' | '`' => return Err(format!("it uses {c:?}")),
            c if c.is_whitespace() => reader.end_word(),
            c => reader.push(c),
        }
    }
    reader.end_command();
    reader.commands.retain(|command| !command.is_empty());
    Ok(reader.commands)
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    commands: Vec<Vec<String>>,
    word: Option<String>,
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

impl Reader<'_> {
    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        if let (Some(word), Some(command)) = (self.word.take(), self.commands.last_mut()) {
            command.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.commands.push(Vec::new());
    }

    fn quoted(&mut self, rest: &mut Rest<'_>) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match rest.next().ok_or("a quote is not closed")? {
                '\'' => return Ok(()),
                c => self.push(c),
            }
        }
    }

    fn double(&mut self, rest: &mut Rest<'_>) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match rest.next().ok_or("a quote is not closed")? {
                '"' => return Ok(()),
                '`' => return Err("it uses '`'".to_owned()),
                '\\' => match rest.next().ok_or("a quote is not closed")? {
                    c @ ('"' | '\\' | '$' | '`') => self.push(c),
                    '\n' => {}
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                '$' => {
                    let value = self.variable(rest)?;
                    value.chars().for_each(|c| self.push(c));
                }
                c => self.push(c),
            }
        }
    }

    /// The value of a variable, of which the `$` was read.
    fn variable(&self, rest: &mut Rest<'_>) -> Result<String, String> {
        let braces = rest.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        if name.is_empty() || (braces && rest.next_if_eq(&'}').is_none()) {
            return Err("it uses an expansion that only a shell understands".to_owned());
        }
        let value = self.variables.get(&name);
        value
            .cloned()
            .ok_or_else(|| format!("${name} is not known before it runs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Result<Vec<Vec<String>>, String> {
        commands(script, &[("HOST".to_owned(), "web 1".to_owned())].into())
    }

    #[test]
    fn simple_commands_are_split_as_a_shell_does() {
        let found = of(
            "set -e\nrestic backup '/da ta' --host \"$HOST\" \\\n --tag a\\ b # why\nrestic forget --keep-daily=7 && restic prune; echo ${HOST}",
        );
        let wanted: Vec<Vec<&str>> = vec![
            vec!["set", "-e"],
            vec!["restic", "backup", "/da ta", "--host", "web 1", "--tag", "a b"],
            vec!["restic", "forget", "--keep-daily=7"],
            vec!["restic", "prune"],
            vec!["echo", "web 1"],
        ];
        assert_eq!(
            found,
            Ok(wanted
                .into_iter()
                .map(|c| c.into_iter().map(str::to_owned).collect())
                .collect())
        );
        assert_eq!(of("a ''").map(|c| c[0].len()), Ok(2), "an empty word is a word");
    }

    #[test]
    fn what_only_a_shell_understands_is_refused() {
        for script in [
            "pg_dump | restic backup --stdin",
            "a $(hostname)",
            "a `b`",
            "a > b",
            "a $DATE",
            "a '",
            "a ${X:-y}",
        ] {
            assert!(of(script).is_err(), "{script}");
        }
    }
}
