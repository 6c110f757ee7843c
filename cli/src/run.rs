//! Carries a command out: asks, prints, and answers with an exit code.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use proto::v1::{
    Collection, Filter, ListRequest, Row, StatusResponse, WatchEvent, WatchRequest, watch_event::Body,
};
use serde_json::json;
use tokio::time::timeout;

use crate::arguments::{
    Arguments, Command, Format, HubArguments, List, Output, Repos, ReposCommand, RestoreCommand,
};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::output::{line, note, print};
use crate::{document, maintenance, operations, render, snapshots};

/// The hub sends a heartbeat every 10 s: three missed, and nothing on the screen can be trusted.
const SILENCE: Duration = Duration::from_secs(30);

/// A command, and how it ended.
pub async fn main(arguments: Arguments) -> ExitCode {
    let Arguments { command, hub } = arguments;
    let work = async {
        match command {
            Command::Status(output) => status(&hub, &output).await,
            Command::Clusters(clusters) => match &clusters.command {
                Some(command) => crate::clusters::decide(&hub, command).await,
                None => collection(&hub, &clusters.list, Collection::Clusters, "ClusterList").await,
            },
            Command::Repos(Repos { command, list }) => match &command {
                Some(ReposCommand::Accept(binding)) => maintenance::bind(&hub, binding, true).await,
                Some(ReposCommand::Unbind(binding)) => maintenance::bind(&hub, binding, false).await,
                Some(ReposCommand::History(of)) => crate::history::show(&hub, of).await,
                Some(ReposCommand::Check(targets)) => operations::check(&hub, targets).await,
                Some(ReposCommand::Unlock(targets)) => operations::unlock(&hub, targets).await,
                None => collection(&hub, &list, Collection::Repositories, "RepositoryList").await,
            },
            Command::Backups(backups) => match &backups.command {
                Some(command) => operations::backups(&hub, command).await,
                None => collection(&hub, &backups.list, Collection::Backups, "BackupList").await,
            },
            Command::Policies(list) => collection(&hub, &list, Collection::Policies, "PolicyList").await,
            Command::Restores(list) => collection(&hub, &list, Collection::Restores, "RestoreList").await,
            Command::Retention(command) => operations::retention(&hub, &command).await,
            Command::Restore(RestoreCommand::Create(restore)) => operations::restore(&hub, &restore).await,
            Command::Snapshots(command) => snapshots::snapshots(&hub, &command).await,
            Command::Operations(command) => operations::operations(&hub, &command).await,
            Command::Locks(locks) => maintenance::locks(&hub, &locks).await,
            Command::WhyLocked(why) => maintenance::why_locked(&hub, &why).await,
            Command::Plan(plan) => maintenance::plan(&hub, &plan).await,
            Command::Hub(command) => crate::hub::run(&hub, &command).await,
            Command::Pause { reason } => crate::hub::pause(&hub, Some(reason)).await,
            Command::Resume => crate::hub::pause(&hub, None).await,
            Command::Audit(audit) => crate::audit::audit(&hub, &audit).await,
            Command::Login(login) => crate::login::login(&hub, &login).await,
            Command::Dashboard(dashboard) => crate::dashboard::dashboard(&hub, &dashboard).await,
            Command::Logout => crate::login::logout(&hub).await,
            Command::Whoami { output } => crate::login::whoami(&hub, output).await,
            Command::Contexts(command) => crate::login::list(&command),
            Command::People(command) => crate::people::people(&hub, command).await,
            Command::Kit(kit) => crate::kit::kit(&kit).await,
            Command::Migrate(command) => crate::migrate::migrate(&command).await,
        }
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

async fn status(hub: &HubArguments, output: &Output) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    loop {
        let status = client.status().await?;
        match output.output {
            Format::Json if output.watch => line(&document::status(&status).to_string()),
            Format::Json => line(&format!("{:#}", document::status(&status))),
            Format::Yaml => print(&yaml(&document::status(&status))),
            Format::Name => line(&status.verdict),
            Format::Table | Format::Wide => {
                clear(output);
                print(&render::status(&status, Timestamp::now()));
            }
        }
        if !output.watch {
            return Ok(verdict(&status));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
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

async fn collection(
    hub: &HubArguments,
    list: &List,
    collection: Collection,
    kind: &str,
) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let filter = Filter {
        clusters: list.cluster.clone(),
        namespaces: list.namespace.clone(),
        states: list.state.clone(),
        text: list.text.clone().unwrap_or_default(),
    };
    if list.output.watch {
        return watch(&mut client, &list.output, collection, filter).await;
    }
    let request = ListRequest {
        collection: collection.into(),
        filter: Some(filter),
        sort: list.sort.clone(),
        ..ListRequest::default()
    };
    let listing = client.list(request).await?;
    let value = || document::list(kind, listing.revision, listing.as_of.as_ref(), &listing.rows);
    match list.output.output {
        Format::Json => line(&format!("{:#}", value())),
        Format::Yaml => print(&yaml(&value())),
        Format::Name => listing.rows.iter().for_each(|row| line(&row.key)),
        Format::Table | Format::Wide if listing.rows.is_empty() => {
            note("nothing matches; fleet clusters shows which clusters are connected")
        }
        format @ (Format::Table | Format::Wide) => {
            print(&render::table(
                &listing.rows,
                format == Format::Wide,
                Timestamp::now(),
            ));
        }
    }
    Ok(0)
}

async fn watch(
    client: &mut Client,
    output: &Output,
    collection: Collection,
    filter: Filter,
) -> Result<u8, Failure> {
    let request = WatchRequest {
        collection: collection.into(),
        filter: Some(filter),
    };
    let mut events = client.watch(request).await?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut complete = false;
    loop {
        let event = timeout(SILENCE, events.message()).await;
        let event = event.map_err(|_| {
            Failure::Hub("no heartbeat for 30 seconds; what was shown may be out of date".to_owned())
        })?;
        let Some(event) = event.map_err(|status| client.broken(&status))? else {
            return Err(Failure::Hub("it ended the watch; start it again".to_owned()));
        };
        if output.output == Format::Json {
            line(&event_line(&event).to_string());
            continue;
        }
        let changed = match event.body {
            Some(Body::Upsert(row)) => {
                let line = complete.then(|| row.clone());
                rows.insert(row.key.clone(), row);
                line
            }
            Some(Body::Removed(key)) => {
                rows.remove(&key);
                None
            }
            Some(Body::Bookmark(_)) => {
                complete = true;
                print_rows(output, &rows, None);
                continue;
            }
            Some(Body::Heartbeat(_)) | None => continue,
        };
        if complete {
            print_rows(output, &rows, changed.as_ref());
        }
    }
}

/// On a terminal the whole table anew; in a pipe the rows that changed.
fn print_rows(output: &Output, rows: &BTreeMap<String, Row>, changed: Option<&Row>) {
    let all: Vec<Row> = rows.values().cloned().collect();
    let wide = output.output == Format::Wide;
    let now = Timestamp::now();
    if std::io::stdout().is_terminal() {
        clear(output);
        print(&render::table(&all, wide, now));
    } else if let Some(row) = changed {
        let table = render::table(std::slice::from_ref(row), wide, now);
        table.lines().skip(1).for_each(line);
    } else {
        print(&render::table(&all, wide, now));
    }
}

fn event_line(event: &WatchEvent) -> serde_json::Value {
    let (type_, row) = match &event.body {
        Some(Body::Upsert(row)) => ("UPSERT", document::row(row)),
        Some(Body::Removed(key)) => ("REMOVED", json!({ "key": key })),
        Some(Body::Bookmark(_)) => ("BOOKMARK", serde_json::Value::Null),
        Some(Body::Heartbeat(_)) => ("HEARTBEAT", serde_json::Value::Null),
        None => ("UNKNOWN", serde_json::Value::Null),
    };
    let as_of = crate::text::rfc3339(event.as_of.as_ref());
    json!({ "type": type_, "revision": event.revision, "asOf": as_of, "object": row })
}

pub fn yaml(value: &serde_json::Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

fn clear(output: &Output) {
    if output.watch && std::io::stdout().is_terminal() {
        print("\x1b[H\x1b[2J");
    }
}
