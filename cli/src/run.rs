//! Carries a command out: asks, prints, and answers with an exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use proto::v1::{Collection, Filter, ListRequest, StatusResponse};

use crate::again::Again;
use crate::arguments::{
    Arguments, Command, Format, HubArguments, KubeArguments, List, Output, Repos, ReposCommand,
    RestoreCommand,
};
use crate::client::{Client, Listing};
use crate::failure::{Failure, code};
use crate::local::{self, Local};
use crate::names::Program;
use crate::output::{self, line, note, print};
use crate::{document, maintenance, operations, render, snapshots};

/// Pause between two answers of `fleet status --watch`.
const STATUS: Duration = Duration::from_secs(2);

/// A command, and how it ended.
pub async fn main(program: Program, arguments: Arguments) -> ExitCode {
    let Arguments { command, hub, kube } = arguments;
    let work = async {
        if local::is_meant(&hub, &kube, &command)? {
            return by_kubeconfig(&hub, &kube, &command).await;
        }
        carry_out(program, &hub, &kube, command).await
    };
    let result = tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            note(&format!("fleet: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

async fn carry_out(
    program: Program,
    hub: &HubArguments,
    kube: &KubeArguments,
    command: Command,
) -> Result<u8, Failure> {
    match command {
        Command::Status(output) => status(hub, &output).await,
        Command::Get(get) => crate::detail::get(hub, &get).await,
        Command::Why(get) => crate::why::why(hub, &get).await,
        Command::Activity(activity) => crate::activity::activity(hub, &activity).await,
        Command::Health { output } => crate::health::health(hub, output).await,
        Command::Check(check) => crate::check::check(hub, kube, &check).await,
        Command::Bundle(bundle) => crate::bundle::bundle(hub, kube, &bundle).await,
        Command::Version { client, output } => crate::version::version(hub, client, output).await,
        Command::Completion { shell } => crate::completion::script(shell, program),
        Command::Clusters(clusters) => match &clusters.command {
            Some(command) => crate::clusters::decide(hub, command).await,
            None => collection(hub, &clusters.list, Collection::Clusters).await,
        },
        Command::Repos(Repos { command, list }) => match &command {
            Some(command) => repos(hub, command).await,
            None => collection(hub, &list, Collection::Repositories).await,
        },
        Command::Backups(backups) => match &backups.command {
            Some(command) => operations::backups(hub, command).await,
            None => collection(hub, &backups.list, Collection::Backups).await,
        },
        Command::Policies(list) => collection(hub, &list, Collection::Policies).await,
        Command::Restores(list) => collection(hub, &list, Collection::Restores).await,
        Command::Coverage(of) => crate::coverage::show(hub, &of).await,
        Command::Storage(of) => crate::storage::show(hub, &of).await,
        Command::Retention(command) => operations::retention(hub, &command).await,
        Command::Restore(RestoreCommand::Create(restore)) => operations::restore(hub, &restore).await,
        Command::Snapshots(command) => snapshots::snapshots(hub, &command).await,
        Command::Operations(command) => operations::operations(hub, &command).await,
        Command::Locks(locks) => maintenance::locks(hub, &locks).await,
        Command::WhyLocked(why) => maintenance::why_locked(hub, &why).await,
        Command::Plan(plan) => maintenance::plan(hub, &plan).await,
        Command::Hub(command) => crate::hub::run(hub, kube, &command).await,
        Command::Pause { reason } => crate::hub::pause(hub, Some(reason)).await,
        Command::Resume => crate::hub::pause(hub, None).await,
        Command::Audit(audit) => crate::audit::audit(hub, &audit).await,
        Command::Login(login) => crate::login::login(hub, &login).await,
        Command::Dashboard(dashboard) => crate::dashboard::dashboard(hub, &dashboard).await,
        Command::Logout => crate::login::logout(hub).await,
        Command::Whoami { output } => crate::login::whoami(hub, output).await,
        Command::Contexts(command) => crate::login::list(&command),
        Command::People(command) => crate::people::people(hub, command).await,
        Command::Kit(kit) => crate::kit::kit(hub, kube, &kit).await,
        Command::Migrate(command) => crate::migrate::migrate(kube, &command).await,
    }
}

async fn repos(hub: &HubArguments, command: &ReposCommand) -> Result<u8, Failure> {
    match command {
        ReposCommand::Accept(binding) => maintenance::bind(hub, binding, true).await,
        ReposCommand::Unbind(binding) => maintenance::bind(hub, binding, false).await,
        ReposCommand::History(of) => crate::history::show(hub, of).await,
        ReposCommand::Check(targets) => operations::check(hub, targets).await,
        ReposCommand::Unlock(targets) => operations::unlock(hub, targets).await,
    }
}

/// Without a hub.
async fn by_kubeconfig(hub: &HubArguments, kube: &KubeArguments, command: &Command) -> Result<u8, Failure> {
    let local = Local::look(hub, kube).await?;
    let list = |list: &List, collection| -> Result<u8, Failure> {
        show(list, collection, &local.list(list, collection)?);
        Ok(0)
    };
    match command {
        Command::Status(output) => {
            let status = local.status();
            show_status(output, &status);
            Ok(verdict(&status))
        }
        Command::Backups(of) => list(&of.list, Collection::Backups),
        Command::Repos(of) => list(&of.list, Collection::Repositories),
        Command::Policies(of) => list(of, Collection::Policies),
        Command::Restores(of) => list(of, Collection::Restores),
        Command::Get(get) => {
            crate::detail::show(get, &local.get(get)?);
            Ok(0)
        }
        Command::Why(get) => Ok(crate::why::show(get, &local.get(get)?)),
        _ => Err(Failure::Usage("this needs a hub: fleet login --help".to_owned())),
    }
}

async fn status(hub: &HubArguments, output: &Output) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let mut again = Again::new();
    if !output.watch {
        let status = client.status().await?;
        show_status(output, &status);
        return Ok(verdict(&status));
    }
    loop {
        match client.status().await {
            Ok(status) => {
                again.is_well();
                show_status(output, &status);
                tokio::time::sleep(STATUS).await;
            }
            Err(failure) => {
                again.failed(failure).await?;
                if let Ok(new) = Client::connect(hub).await {
                    client = new;
                }
            }
        }
    }
}

fn show_status(output: &Output, status: &StatusResponse) {
    match output.output {
        Format::Json if output.watch => line(&document::status(status).to_string()),
        Format::Json => line(&format!("{:#}", document::status(status))),
        Format::Yaml if output.watch => print(&format!("---\n{}", yaml(&document::status(status)))),
        Format::Yaml => print(&yaml(&document::status(status))),
        Format::Name => line(&status.verdict),
        format @ (Format::Table | Format::Wide) => {
            clear(output);
            output::table(&render::status(status, Timestamp::now()), format == Format::Wide);
        }
    }
}

/// Exit code of a status: a backup that is unsafe or anything else that waits for a person comes before what is unknown.
fn verdict(status: &StatusResponse) -> u8 {
    match status.verdict.as_str() {
        "not-safe" => code::FINDING,
        _ if render::others(status) > 0 => code::FINDING,
        "safe" => 0,
        _ => code::UNKNOWN,
    }
}

async fn collection(hub: &HubArguments, list: &List, collection: Collection) -> Result<u8, Failure> {
    let filter = Filter {
        clusters: list.cluster.clone(),
        namespaces: list.namespace.clone(),
        states: list.state.clone(),
        text: list.text.clone().unwrap_or_default(),
    };
    if list.output.watch {
        return crate::watch::watch(hub, list, collection, filter).await;
    }
    let mut client = Client::connect(hub).await?;
    let request = ListRequest {
        collection: collection.into(),
        filter: Some(filter),
        sort: list.sort.clone(),
        ..ListRequest::default()
    };
    show(list, collection, &client.list(request).await?);
    Ok(0)
}

fn show(list: &List, collection: Collection, listing: &Listing) {
    let kind = match collection {
        Collection::Clusters => "ClusterList",
        Collection::Repositories => "RepositoryList",
        Collection::Backups => "BackupList",
        Collection::Policies => "PolicyList",
        Collection::Restores => "RestoreList",
        Collection::Unspecified => "List",
    };
    let value = || document::list(kind, listing.revision, listing.as_of.as_ref(), &listing.rows);
    match list.output.output {
        Format::Json => line(&format!("{:#}", value())),
        Format::Yaml => print(&yaml(&value())),
        Format::Name => listing.rows.iter().for_each(|row| line(&row.key)),
        Format::Table | Format::Wide if listing.rows.is_empty() => {
            note("nothing matches; fleet clusters shows which clusters are connected");
        }
        format @ (Format::Table | Format::Wide) => {
            let wide = format == Format::Wide;
            output::table(&render::table(&listing.rows, wide, Timestamp::now()), wide);
        }
    }
}

pub fn yaml(value: &serde_json::Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// Begins a screen anew, on a terminal.
pub fn clear(output: &Output) {
    if output.watch && std::io::stdout().is_terminal() {
        print("\x1b[H\x1b[2J");
    }
}
