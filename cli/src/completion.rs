//! Completion for shells, with names from the hub. It never takes longer than a person waits, and never says anything.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use clap::Parser as _;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use proto::v1::{Collection, Filter, ListRequest};

use crate::arguments::{Arguments, HubArguments, Shell};
use crate::client::Client;
use crate::contexts;
use crate::failure::Failure;
use crate::names::Program;
use crate::output;

/// Longest time for names.
const LIMIT: Duration = Duration::from_millis(1500);
/// Most names: nobody reads more.
const NAMED: u32 = 100;
/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks, and ends the program then.
pub fn answer(program: Program) {
    CompleteEnv::with_factory(move || program.command())
        .var(VARIABLE)
        .complete();
}

/// Prints what a shell has to be told: `source <(fleet completion bash)`.
///
/// # Errors
/// When it cannot be made.
pub fn script(shell: Shell, program: Program) -> Result<u8, Failure> {
    let mut script = Vec::new();
    let binary = program.file();
    let written: io::Result<()> = match shell {
        Shell::Bash => Bash.write_registration(VARIABLE, binary, binary, binary, &mut script),
        Shell::Zsh => Zsh.write_registration(VARIABLE, binary, binary, binary, &mut script),
        Shell::Fish => Fish.write_registration(VARIABLE, binary, binary, binary, &mut script),
    };
    written.map_err(|error| Failure::Usage(format!("the script cannot be made: {error}")))?;
    output::print(&String::from_utf8_lossy(&script));
    Ok(0)
}

/// Names of clusters.
#[must_use]
pub fn clusters() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| names(current, &[Collection::Clusters]))
}

/// Names of repositories.
#[must_use]
pub fn repositories() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| names(current, &[Collection::Repositories]))
}

/// `CLUSTER/NAMESPACE/NAME` of backups.
#[must_use]
pub fn backups() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| names(current, &[Collection::Backups]))
}

/// Everything that `fleet get` and `fleet why` take.
#[must_use]
pub fn objects() -> ArgValueCompleter {
    let all = [
        Collection::Clusters,
        Collection::Repositories,
        Collection::Backups,
        Collection::Policies,
        Collection::Restores,
    ];
    ArgValueCompleter::new(move |current: &OsStr| names(current, &all))
}

/// Logins on this machine.
#[must_use]
pub fn logins() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let known = contexts::path()
            .and_then(|path| contexts::load(&path))
            .unwrap_or_default();
        let current = current.to_string_lossy().into_owned();
        let names = known.contexts.into_iter().map(|of| of.name);
        let names = names.filter(|name| name.starts_with(&current));
        names.map(CompletionCandidate::new).collect()
    })
}

/// Asks the hub. Whatever goes wrong: no names.
fn names(current: &OsStr, collections: &[Collection]) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str().map(str::to_owned) else {
        return Vec::new();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let found = runtime.block_on(async { tokio::time::timeout(LIMIT, ask(&current, collections)).await });
    // A connection that hangs must not be waited for.
    runtime.shutdown_background();
    let mut names = found.ok().and_then(Result::ok).unwrap_or_default();
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

async fn ask(current: &str, collections: &[Collection]) -> Result<Vec<String>, Failure> {
    let mut client = Client::connect(&typed()).await?;
    let mut names = Vec::new();
    for collection in collections {
        // The last part of what was typed is a part of a name; what comes before is looked at below.
        let text = current.rsplit('/').next().unwrap_or_default().to_owned();
        let request = ListRequest {
            collection: (*collection).into(),
            filter: Some(Filter {
                text,
                ..Filter::default()
            }),
            sort: "name".to_owned(),
            page_size: NAMED,
            ..ListRequest::default()
        };
        let rows = client.page(request).await?.rows;
        names.extend(rows.into_iter().map(|row| match row.body {
            Some(proto::v1::row::Body::Repository(repository)) => repository.name,
            _ => row.key,
        }));
    }
    names.retain(|name| name.starts_with(current));
    Ok(names.iter().map(|name| proto::text::cleaned(name)).collect())
}

/// How the hub is reached, as far as it stands on the line already.
fn typed() -> HubArguments {
    let line = std::env::args().skip_while(|word| word != "--").skip(1);
    let mut line = line.peekable();
    let mut kept = vec!["fleet".to_owned()];
    while let Some(word) = line.next() {
        let flags = ["--hub", "--ca", "--cert", "--key", "--server-name", "--context"];
        let Some((flag, value)) = flags.into_iter().find_map(|flag| {
            let rest = word.strip_prefix(flag)?;
            match rest.strip_prefix('=') {
                Some(value) => Some((flag, Some(value.to_owned()))),
                None => rest.is_empty().then_some((flag, None)),
            }
        }) else {
            continue;
        };
        if let Some(value) = value.or_else(|| line.next()) {
            kept.extend([flag.to_owned(), value]);
        }
    }
    kept.push("status".to_owned());
    Arguments::try_parse_from(kept)
        .map(|arguments| arguments.hub)
        .unwrap_or_else(|_| Arguments::parse_from(["fleet", "status"]).hub)
}
