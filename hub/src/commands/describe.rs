//! What a command is about: for people, and whether the cluster has it. Pure.

use proto::v1::command_body::What;
use proto::v1::{CommandBody, ObjectName, resume_resource, suspend_resource};

use crate::inventory::{Held, Inventory};

/// Kind of a resource that a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Backup,
    Policy,
    Repository,
}

impl Kind {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Backup => "ResticBackup",
            Kind::Policy => "GlobalRetentionPolicy",
            Kind::Repository => "ResticRepository",
        }
    }
}

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Such as "run backup".
    pub what: &'static str,
    pub kind: Kind,
    pub name: &'a ObjectName,
}

/// What a command is about; `None` for one without a resource.
#[must_use]
pub fn about(body: &CommandBody) -> Option<About<'_>> {
    use resume_resource::Resource as Resumed;
    use suspend_resource::Resource as Suspended;
    let (what, kind, name) = match body.what.as_ref()? {
        What::RunBackup(run) => ("run backup", Kind::Backup, run.backup.as_ref()),
        What::RunRetention(run) => ("run retention", Kind::Policy, run.policy.as_ref()),
        What::PreviewRetention(run) => ("preview retention", Kind::Policy, run.policy.as_ref()),
        What::RetainRepository(run) => (
            "run retention for another cluster",
            Kind::Repository,
            run.repository.as_ref(),
        ),
        What::RunCheck(run) => ("run check", Kind::Repository, run.repository.as_ref()),
        What::Unlock(unlock) => ("unlock", Kind::Repository, unlock.repository.as_ref()),
        What::CreateRestore(restore) => ("create restore", Kind::Backup, restore.backup.as_ref()),
        What::Suspend(suspend) => match suspend.resource.as_ref()? {
            Suspended::Backup(name) => ("suspend backup", Kind::Backup, Some(name)),
            Suspended::Policy(name) => ("suspend retention", Kind::Policy, Some(name)),
        },
        What::Resume(resume) => match resume.resource.as_ref()? {
            Resumed::Backup(name) => ("resume backup", Kind::Backup, Some(name)),
            Resumed::Policy(name) => ("resume retention", Kind::Policy, Some(name)),
        },
    };
    let name = name.filter(|name| !name.namespace.is_empty() && !name.name.is_empty())?;
    Some(About { what, kind, name })
}

/// Whether a command names a snapshot of its own choice: in a shared repository that may be one of anybody's, whatever the
/// backup is that it names.
#[must_use]
pub fn names_snapshot(body: &CommandBody) -> bool {
    let Some(What::CreateRestore(restore)) = &body.what else {
        return false;
    };
    !["", "latest"].contains(&restore.snapshot.as_str())
}

/// The resource that a command names, as the hub holds it.
#[must_use]
pub fn find<'a>(inventory: &'a Inventory, cluster: &str, about: &About<'_>) -> Option<&'a Held> {
    let is = |held: &&Held| {
        let kind = match about.kind {
            Kind::Backup => held.backup().is_some(),
            Kind::Policy => held.policy().is_some(),
            Kind::Repository => held.repository().is_some(),
        };
        kind && held.namespace() == about.name.namespace && held.name() == about.name.name
    };
    let member = inventory.member(cluster)?;
    member.objects.values().map(|held| &**held).find(is)
}

#[cfg(test)]
mod tests {
    use proto::v1::{CreateRestore, RunBackup, SuspendResource};

    use super::*;

    #[test]
    fn a_command_without_a_resource_is_about_nothing() {
        let body = |what| CommandBody { what };
        let named = |namespace: &str| ObjectName {
            namespace: namespace.to_owned(),
            name: "orders".to_owned(),
        };
        let run = |backup| body(Some(What::RunBackup(RunBackup { backup })));
        assert_eq!(about(&body(None)), None);
        assert_eq!(about(&run(None)), None);
        assert_eq!(about(&run(Some(named("")))), None);
        assert_eq!(
            about(&body(Some(What::Suspend(SuspendResource::default())))),
            None
        );
        let backup = run(Some(named("shop")));
        let found = about(&backup).unwrap();
        assert_eq!(
            (found.what, found.kind, found.name),
            ("run backup", Kind::Backup, &named("shop"))
        );
    }
    #[test]
    fn only_a_restore_of_the_latest_stays_with_its_backup() {
        let restore = |snapshot: &str| CommandBody {
            what: Some(What::CreateRestore(CreateRestore {
                snapshot: snapshot.to_owned(),
                ..CreateRestore::default()
            })),
        };
        assert!(!names_snapshot(&restore("")) && !names_snapshot(&restore("latest")));
        assert!(names_snapshot(&restore("5f3a9c01")) && names_snapshot(&restore("Latest")));
        let run = What::RunBackup(RunBackup::default());
        assert!(!names_snapshot(&CommandBody { what: Some(run) }));
    }
}
