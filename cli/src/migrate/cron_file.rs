//! A file of variables, as scripts outside of Kubernetes read it. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use super::cron_env::names_a_file;
use super::plan::{Place, Plan};
use super::secret::{Source, is_of_restic, reference, variables, without_user};
use super::words::commands;
use crate::arguments::Tool;

/// A ResticRepository of it.
///
/// # Errors
/// What is missing in it.
pub fn of_file(content: &str, namespace: &str, name: &str) -> Result<Plan, String> {
    let mut plan = Plan::new(Tool::Cron, false);
    let values = lines(content)?;
    let url = values
        .get("RESTIC_REPOSITORY")
        .ok_or("it has no RESTIC_REPOSITORY")?;
    if !url.contains(':') || url.starts_with('/') {
        return Err(
            "RESTIC_REPOSITORY is a folder: put a server in front of it, and write its URL".to_owned(),
        );
    }
    if !values.contains_key("RESTIC_PASSWORD") {
        return Err(
            "it has no RESTIC_PASSWORD; write the password itself in place of a file or a command".to_owned(),
        );
    }
    let about = format!("ResticRepository {namespace}/{name}");
    let known = variables("", &values);
    let (files, known): (Vec<&String>, Vec<&String>) = known.keys().partition(|key| names_a_file(key));
    let entries = known
        .iter()
        .map(|key| ((*key).clone(), Source::literal(&values[*key])));
    let mut entries: BTreeMap<_, _> = entries.collect();
    let url = &without_user(url, &mut entries);
    let place = Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: String::new(),
    };
    for variable in files {
        let text = format!(
            "{variable} names a file: put its content into the Secret of the repository, as {variable}"
        );
        plan.note(&about, text);
    }
    let reference = reference(&mut plan, &place, entries);
    plan.repository(&place, url, &reference, json!({}));
    plan.note(
        &about,
        "write a ResticBackup for what is to be backed up from now on, with restic.hostname: the host of before, and a \
         GlobalRetentionPolicy whose rule selects that hostname",
    );
    Ok(plan)
}

/// The variables of a file of `NAME=VALUE` lines, with or without `export`, as a shell reads them.
///
/// # Errors
/// The variable of restic whose value only a shell could read. The value is not in it.
fn lines(content: &str) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for line in content.lines() {
        let begun = line.trim().trim_start_matches("export ").trim_start();
        let begun = begun.split_once('=').map(|(name, _)| name).unwrap_or_default();
        let read = commands(line, &values).ok().and_then(|commands| {
            let all: Option<Vec<_>> = commands.iter().map(|words| assignments(words)).collect();
            all.map(|all| all.concat())
        });
        match read {
            Some(read) => values.extend(read),
            None if is_of_restic(begun) => {
                return Err(format!(
                    "the value of {begun} is not known before a shell has read it: write it out, between single quotes"
                ));
            }
            // Not even that it was set to something else before counts.
            None => drop(values.remove(begun)),
        }
    }
    Ok(values)
}

/// What a command sets, if it does nothing but that.
fn assignments(words: &[String]) -> Option<Vec<(String, String)>> {
    let words = match words.split_first() {
        Some((first, rest)) if first == "export" => rest,
        _ => words,
    };
    let pair = |word: &String| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::migrate::fixtures::{of_kind, valid};

    #[test]
    fn a_file_of_variables_becomes_a_repository() {
        let content =
            "# nas\nexport RESTIC_REPOSITORY=sftp:backup@nas:/srv\nRESTIC_PASSWORD='long one'\nHOME=/root\n";
        let plan = of_file(content, "shop", "nas").unwrap();
        valid(&plan);
        let repository = &of_kind(&plan, "ResticRepository")[0]["spec"];
        assert_eq!(repository["repositoryURL"], "sftp:backup@nas:/srv");
        assert_eq!(
            plan.secrets[0].entries["RESTIC_PASSWORD"],
            Source::literal("long one")
        );
        assert_eq!(plan.secrets[0].entries.len(), 1);
        assert!(of_file("RESTIC_REPOSITORY=/srv/r\nRESTIC_PASSWORD=x", "a", "b").is_err());
        assert!(
            of_file("RESTIC_REPOSITORY=s3:x", "a", "b")
                .unwrap_err()
                .contains("RESTIC_PASSWORD")
        );
    }

    #[test]
    fn a_password_in_the_address_is_not_written_into_a_resource() {
        let file = "RESTIC_REPOSITORY=rest:https://u:hidden@host/\nRESTIC_PASSWORD=x";
        let plan = of_file(file, "shop", "nas").unwrap();
        assert!(!format!("{:?}", plan.objects).contains("hidden"));
    }

    #[test]
    fn a_line_that_only_a_shell_can_read_is_no_value() {
        for line in [
            "RESTIC_PASSWORD=$(cat /etc/pw)",
            "RESTIC_PASSWORD=\"${PW}\"",
            "RESTIC_PASSWORD=`cat /etc/pw`",
            "RESTIC_PASSWORD=a$b",
            "RESTIC_PASSWORD='a",
            "RESTIC_PASSWORD=a b",
        ] {
            let why = lines(&format!("X=$(y)\n{line}\n")).unwrap_err();
            assert!(why.contains("RESTIC_PASSWORD"), "{line}: {why}");
            assert!(!why.contains("/etc/pw"), "{why}");
        }
        let read = lines(
            "# c\nBASE=s3:h\nexport RESTIC_REPOSITORY=\"$BASE/b\" # why\nRESTIC_PASSWORD='a$b #`c'\nset -a\nPS1=$(x)\n",
        );
        let wanted = [
            ("BASE", "s3:h"),
            ("RESTIC_PASSWORD", "a$b #`c"),
            ("RESTIC_REPOSITORY", "s3:h/b"),
        ];
        assert_eq!(
            read,
            Ok(wanted
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into())
        );
    }

    #[test]
    fn a_path_is_not_the_content_of_its_file() {
        let file = "RESTIC_REPOSITORY=rest:https://host/\nRESTIC_PASSWORD=x\nRESTIC_CACERT=/etc/ca.pem";
        let plan = of_file(file, "shop", "nas").unwrap();
        assert!(!plan.secrets[0].entries.contains_key("RESTIC_CACERT"));
        assert!(
            plan.notes
                .iter()
                .any(|note| note.text.contains("RESTIC_CACERT names a file"))
        );
    }
}
