//! A file of variables, as scripts outside of Kubernetes read it. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use super::cron_env::lines;
use super::plan::{Place, Plan};
use super::secret::{Source, reference, variables, without_user};
use crate::arguments::Tool;

/// A ResticRepository of it.
///
/// # Errors
/// What is missing in it.
pub fn of_file(content: &str, namespace: &str, name: &str) -> Result<Plan, String> {
    let mut plan = Plan::new(Tool::Cron, false);
    let values = lines(content);
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
    let known = variables("", &values);
    let entries = known
        .keys()
        .map(|key| (key.clone(), Source::literal(&values[key])));
    let mut entries: BTreeMap<_, _> = entries.collect();
    let url = &without_user(url, &mut entries);
    let place = Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: String::new(),
    };
    let reference = reference(&mut plan, &place, entries);
    plan.repository(&place, url, &reference, json!({}));
    plan.note(
        &format!("ResticRepository {namespace}/{name}"),
        "write a ResticBackup for what is to be backed up from now on, with restic.hostname: the host of before, and a \
         GlobalRetentionPolicy whose rule selects that hostname",
    );
    Ok(plan)
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
}
