//! What clusters are asked to do: each command, the wait for its end, and the list of all.

mod show;
mod wait;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use jiff::Timestamp;
use proto::v1::{
    CancelOperationRequest, CommandOptions, CreateRestore, CreateRestoreRequest, GetOperationRequest,
    ListOperationsRequest, ObjectName, Operation, PreviewRetention, PreviewRetentionRequest, ResumeRequest,
    ResumeResource, RunBackup, RunBackupRequest, RunCheck, RunCheckRequest, RunRetention,
    RunRetentionRequest, SuspendRequest, SuspendResource, UnlockRepository, UnlockRequest, resume_resource,
    suspend_resource,
};

use crate::arguments::{
    BackupsCommand, Format, HubArguments, OperationList, OperationsCommand, Restore, RetentionCommand,
    Targets, Wait,
};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, line, note, print};
use crate::run::yaml;

/// A resource of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub cluster: String,
    pub name: ObjectName,
}

impl Target {
    /// Out of CLUSTER/NAMESPACE/NAME.
    pub fn parse(text: &str) -> Result<Target, Failure> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [cluster, namespace, name] if parts.iter().all(|part| !part.is_empty()) => Ok(Target {
                cluster: (*cluster).to_owned(),
                name: ObjectName {
                    namespace: (*namespace).to_owned(),
                    name: (*name).to_owned(),
                },
            }),
            _ => Err(Failure::Usage(format!(
                "{text:?} is not CLUSTER/NAMESPACE/NAME; `fleet backups -o name` prints backups so"
            ))),
        }
    }
}

/// One command, to be sent.
struct Asking<'a> {
    client: &'a Client,
    options: CommandOptions,
    name: ObjectName,
}

/// A number that no other request of this person has.
fn request_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

fn options(target: &Target, wait: &Wait) -> CommandOptions {
    CommandOptions {
        cluster: target.cluster.clone(),
        request_id: request_id(),
        begin_within_ms: u64::try_from(wait.within.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Sends one command for each target, and waits for the ends of all.
async fn each(
    hub: &HubArguments,
    targets: &Targets,
    ask: impl AsyncFn(Asking<'_>) -> Result<Operation, Failure>,
) -> Result<u8, Failure> {
    let parsed: Result<Vec<Target>, Failure> =
        targets.targets.iter().map(|text| Target::parse(text)).collect();
    let (parsed, client) = (parsed?, Client::connect(hub).await?);
    let mut operations = Vec::new();
    for (n, target) in parsed.iter().enumerate() {
        let asking = Asking {
            client: &client,
            options: options(target, &targets.wait),
            name: target.name.clone(),
        };
        match ask(asking).await {
            Ok(operation) => {
                // At once: the ids are known also when a later one cannot be sent.
                line(&operation.id);
                operations.push(operation);
            }
            Err(failure) => {
                let unsent = targets.targets.get(n..).unwrap_or_default().join(", ");
                if n > 0 {
                    note(&format!(
                        "not sent: {unsent}; the operations whose ids are shown go on"
                    ));
                }
                return Err(failure);
            }
        }
    }
    wait::ends(hub, client, operations, &targets.wait).await
}

/// One RPC of those that command.
macro_rules! ask {
    ($asking:expr, $rpc:ident, $request:ident, $command:expr) => {{
        let asking = $asking;
        let request = $request {
            options: Some(asking.options),
            command: Some($command),
        };
        let mut control = asking.client.control();
        asking.client.answer(control.$rpc(request)).await
    }};
}

pub async fn backups(hub: &HubArguments, command: &BackupsCommand) -> Result<u8, Failure> {
    match command {
        BackupsCommand::Run(targets) => {
            each(hub, targets, async |asking| {
                let backup = Some(asking.name.clone());
                ask!(asking, run_backup, RunBackupRequest, RunBackup { backup })
            })
            .await
        }
        BackupsCommand::Suspend(targets) => {
            each(hub, targets, async |asking| {
                let resource = Some(suspend_resource::Resource::Backup(asking.name.clone()));
                ask!(asking, suspend, SuspendRequest, SuspendResource { resource })
            })
            .await
        }
        BackupsCommand::Resume(targets) => {
            each(hub, targets, async |asking| {
                let resource = Some(resume_resource::Resource::Backup(asking.name.clone()));
                ask!(asking, resume, ResumeRequest, ResumeResource { resource })
            })
            .await
        }
    }
}

pub async fn retention(hub: &HubArguments, command: &RetentionCommand) -> Result<u8, Failure> {
    match command {
        RetentionCommand::Run(targets) => {
            each(hub, targets, async |asking| {
                let policy = Some(asking.name.clone());
                ask!(
                    asking,
                    run_retention,
                    RunRetentionRequest,
                    RunRetention { policy }
                )
            })
            .await
        }
        RetentionCommand::Preview(targets) => {
            each(hub, targets, async |asking| {
                let policy = Some(asking.name.clone());
                ask!(
                    asking,
                    preview_retention,
                    PreviewRetentionRequest,
                    PreviewRetention { policy }
                )
            })
            .await
        }
        RetentionCommand::Suspend(targets) => {
            each(hub, targets, async |asking| {
                let resource = Some(suspend_resource::Resource::Policy(asking.name.clone()));
                ask!(asking, suspend, SuspendRequest, SuspendResource { resource })
            })
            .await
        }
        RetentionCommand::Resume(targets) => {
            each(hub, targets, async |asking| {
                let resource = Some(resume_resource::Resource::Policy(asking.name.clone()));
                ask!(asking, resume, ResumeRequest, ResumeResource { resource })
            })
            .await
        }
    }
}

pub async fn check(hub: &HubArguments, targets: &Targets) -> Result<u8, Failure> {
    each(hub, targets, async |asking| {
        let repository = Some(asking.name.clone());
        ask!(asking, run_check, RunCheckRequest, RunCheck { repository })
    })
    .await
}

pub async fn unlock(hub: &HubArguments, targets: &Targets) -> Result<u8, Failure> {
    each(hub, targets, async |asking| {
        let repository = Some(asking.name.clone());
        ask!(asking, unlock, UnlockRequest, UnlockRepository { repository })
    })
    .await
}

pub async fn restore(hub: &HubArguments, restore: &Restore) -> Result<u8, Failure> {
    let target = Target::parse(&restore.backup)?;
    let client = Client::connect(hub).await?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let command = CreateRestore {
        backup: Some(target.name.clone()),
        snapshot: restore.snapshot.clone(),
        claim: text(&restore.claim),
        path: text(&restore.path),
        new_claim: text(&restore.new_claim),
        size: text(&restore.size),
        storage_class: text(&restore.storage_class),
        snapshot_path: text(&restore.from),
        include_paths: restore.include.clone(),
        exclude_paths: restore.exclude.clone(),
    };
    let request = CreateRestoreRequest {
        options: Some(options(&target, &restore.wait)),
        command: Some(command),
    };
    let mut control = client.control();
    let operation = client.answer(control.create_restore(request)).await?;
    line(&operation.id);
    wait::ends(hub, client, vec![operation], &restore.wait).await
}

/// Carries a command out.
pub async fn operations(hub: &HubArguments, command: &OperationsCommand) -> Result<u8, Failure> {
    let client = Client::connect(hub).await?;
    match command {
        OperationsCommand::List(asked) => list(&client, asked).await,
        OperationsCommand::Show { operation, output } => {
            let operation = get(&client, operation).await?;
            match output {
                Format::Json => line(&format!("{:#}", show::document(&operation))),
                Format::Yaml => print(&yaml(&show::document(&operation))),
                Format::Name => line(&operation.id),
                Format::Table | Format::Wide => print(&show::one(&operation, Timestamp::now())),
            }
            Ok(0)
        }
        OperationsCommand::Wait { operation } => {
            let operation = get(&client, operation).await?;
            wait::end(hub, client, operation).await
        }
        OperationsCommand::Cancel { operation, no_wait } => {
            let present = get(&client, operation).await?;
            if show::is_over(&present) {
                return Ok(wait::too_late(&present));
            }
            let request = CancelOperationRequest { id: present.id };
            let operation = client.answer(client.control().cancel_operation(request)).await?;
            if *no_wait {
                note(&show::state_line(&operation));
                return Ok(0);
            }
            wait::cancelled(hub, client, operation).await
        }
    }
}

async fn get(client: &Client, id: &str) -> Result<Operation, Failure> {
    let request = GetOperationRequest { id: id.to_owned() };
    client.answer(client.control().get_operation(request)).await
}

async fn list(client: &Client, asked: &OperationList) -> Result<u8, Failure> {
    let request = ListOperationsRequest {
        clusters: asked.cluster.clone(),
        open: asked.open,
        limit: asked.limit,
        before: asked.before.clone(),
    };
    let answer = client.answer(client.control().list_operations(request)).await?;
    match asked.output {
        Format::Json => line(&format!("{:#}", show::list(&answer))),
        Format::Yaml => print(&yaml(&show::list(&answer))),
        Format::Name => answer.operations.iter().for_each(|operation| line(&operation.id)),
        Format::Table | Format::Wide if answer.operations.is_empty() => {
            note("no operation matches; `fleet backups run` begins one");
        }
        format @ (Format::Table | Format::Wide) => {
            let wide = format == Format::Wide;
            output::table(&show::table(&answer.operations, wide, Timestamp::now()), wide);
        }
    }
    if !answer.next_page.is_empty() {
        note(&format!(
            "older ones: fleet operations list --before {}",
            answer.next_page
        ));
    }
    Ok(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_three_parts() {
        let target = Target::parse("a/shop/orders").unwrap();
        assert_eq!(
            (target.cluster.as_str(), target.name.name.as_str()),
            ("a", "orders")
        );
        for wrong in ["", "orders", "shop/orders", "a/shop/", "a/b/c/d"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
        assert_ne!(request_id(), request_id());
    }
}
