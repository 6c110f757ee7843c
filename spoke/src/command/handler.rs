//! What is different about each command.

use std::sync::Arc;

use futures::future::BoxFuture;
use proto::v1::command_body::What;
use proto::v1::{CommandBody, ObjectName, resume_resource, suspend_resource};

use super::ledger::End;
use super::restore::Restore;
use super::runs::{Run, Sort};
use super::suspend::{Suspend, Target};
use super::unlock::Unlock;
use crate::allow::Allow;
use crate::clock::BootMillis;
use crate::context::Context;
use crate::exchange::Behalf;
use crate::restic::Restic;
use crate::world::Key;

/// Wakes the actor of a resource.
pub type Wake = Arc<dyn Fn(Subject, Key) + Send + Sync>;

/// Kind of a resource whose actor is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Backup,
    Policy,
    Repository,
}

/// Commands that are about one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    pub subject: Subject,
    pub key: Key,
}

/// A command that was accepted, as its handler sees it.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    /// It has to begin before. `None` after a restart, until the hub has sent it again: nothing begins.
    pub before: Option<BootMillis>,
    /// uid of the object that was made.
    pub made: Option<String>,
}

/// What a handler may use.
#[derive(Clone)]
pub struct Tools {
    pub context: Arc<Context>,
    pub restic: Arc<dyn Restic>,
    pub wake: Wake,
}

/// Where a command stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has not begun. Why, in a sentence.
    Waits(String),
    /// It has not begun, since something cannot be asked now. It is tried again after a pause.
    Unavailable(String),
    /// Something was made for it: kind and name, uid, and what it does. `begun`: it cannot be taken back any more.
    Runs {
        begun: bool,
        object: String,
        uid: Option<String>,
        text: String,
    },
    Ends(End),
}

/// One sort of command.
pub trait Handler: Send + Sync {
    /// What has to be allowed.
    fn allow(&self) -> Allow;

    /// Whether the settings of this cluster allow it.
    ///
    /// # Errors
    /// Which one does not, in a sentence.
    fn allowed(&self, context: &Context) -> Result<(), String> {
        context.site.allowed.check(self.allow())
    }

    /// The resource that it is about. Of its commands one is worked on at a time.
    fn lane(&self) -> Lane;

    /// Whether it has to wait until the commands of its lane that were given before it and are in turn too have ended.
    fn in_turn(&self) -> bool {
        false
    }

    /// Whether it can be done at all, by what is known.
    ///
    /// # Errors
    /// Why it is refused, in a sentence with what to do.
    fn check(&self, context: &Context) -> Result<(), String>;

    /// Begins it if it has not begun and its time is not over, and says where it stands. Called again and again until its
    /// end: what was done before is not done again.
    fn advance<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, Step>;

    /// Takes it back. True: it has not begun, and never will.
    fn withdraw<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, bool>;
}

/// The handler of a command.
///
/// # Errors
/// When this version knows no such command, or it names no resource.
pub fn handler(body: &CommandBody) -> Result<Arc<dyn Handler>, String> {
    use resume_resource::Resource as Resumed;
    use suspend_resource::Resource as Suspended;
    let unknown = || "this version of the operator does not know the command: update it".to_owned();
    let run = |sort, name: &Option<ObjectName>| -> Result<Arc<dyn Handler>, String> {
        let key = named(name.as_ref())?;
        Ok(Arc::new(Run::new(sort, key)))
    };
    let suspend = |target: fn(Key) -> Target, name, suspend| -> Result<Arc<dyn Handler>, String> {
        let target = target(named(Some(name))?);
        Ok(Arc::new(Suspend { target, suspend }))
    };
    match body.what.as_ref().ok_or_else(unknown)? {
        What::RunBackup(asked) => run(Sort::Backup, &asked.backup),
        What::RunRetention(asked) => run(Sort::Retention, &asked.policy),
        What::PreviewRetention(asked) => run(Sort::Preview, &asked.policy),
        What::RunCheck(asked) => run(Sort::Check, &asked.repository),
        What::RetainRepository(asked) => {
            let behalf = Behalf {
                policy: asked.instead_of.clone(),
                approved: asked.approved.clone(),
            };
            let key = named(asked.repository.as_ref())?;
            Ok(Arc::new(Run::on_behalf(key, behalf, asked.restic_id.clone())))
        }
        What::Unlock(asked) => {
            let key = named(asked.repository.as_ref())?;
            Ok(Arc::new(Unlock { key }))
        }
        What::CreateRestore(asked) => {
            let backup = named(asked.backup.as_ref())?;
            Ok(Arc::new(Restore {
                backup,
                asked: asked.clone(),
            }))
        }
        What::Suspend(asked) => match asked.resource.as_ref().ok_or_else(unknown)? {
            Suspended::Backup(name) => suspend(Target::Backup, name, true),
            Suspended::Policy(name) => suspend(Target::Policy, name, true),
        },
        What::Resume(asked) => match asked.resource.as_ref().ok_or_else(unknown)? {
            Resumed::Backup(name) => suspend(Target::Backup, name, false),
            Resumed::Policy(name) => suspend(Target::Policy, name, false),
        },
    }
}

fn named(name: Option<&ObjectName>) -> Result<Key, String> {
    let name = name.filter(|name| !name.namespace.is_empty() && !name.name.is_empty());
    let name = name.ok_or("the command names no resource")?;
    Ok(Key::new(&name.namespace, &name.name))
}
