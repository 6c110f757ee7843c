//! Locks and plans.

pub mod document;
mod plan;
pub mod render;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{
    DecideBindingRequest, DecidePlanRequest, LocksRequest, PlansRequest, PlansResponse, ReleaseLockRequest,
};
use serde_json::Value;

use crate::arguments::{self, Binding, Format, HubArguments, LocksCommand};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::output::{self, note};
use crate::run::yaml;

/// Prints an answer: a document, names, or text.
pub fn print(
    format: Format,
    document: &Value,
    names: impl Iterator<Item = String>,
    text: impl FnOnce() -> String,
) {
    match format {
        Format::Json => output::line(&format!("{document:#}")),
        Format::Yaml => output::print(&yaml(document)),
        Format::Name => names.for_each(|name| output::line(&name)),
        Format::Table => output::table(&text(), false),
        Format::Wide => output::table(&text(), true),
    }
}

pub async fn locks(hub: &HubArguments, arguments: &arguments::Locks) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    if let Some(LocksCommand::Release {
        repository,
        token,
        i_checked,
    }) = &arguments.command
    {
        let request = ReleaseLockRequest {
            repository: repository.clone(),
            token: *token,
            checked: *i_checked,
        };
        client.release_lock(request).await?;
        if *i_checked {
            note(&format!(
                "the pause is over; the next operation begins: fleet why-locked {repository}"
            ));
            return Ok(0);
        }
        note(&format!(
            "taken back; its pod ends now, and its end frees the repository: fleet why-locked {repository}"
        ));
        return Ok(0);
    }
    let answer = client.locks(LocksRequest::default()).await?;
    if answer.locks.is_empty() && matches!(arguments.output, Format::Table | Format::Wide) {
        note("no repository is locked, and nobody waits");
        return Ok(0);
    }
    let names = answer.locks.iter().map(|lock| lock.restic_id.clone());
    print(arguments.output, &document::locks(&answer), names, || {
        render::locks(&answer.locks, Timestamp::now())
    });
    Ok(0)
}

pub async fn why_locked(hub: &HubArguments, arguments: &arguments::WhyLocked) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let request = LocksRequest {
        repository: arguments.repository.clone(),
    };
    let answer = client.locks(request).await?;
    if answer.locks.is_empty() {
        let text = format!(
            "there is no repository {:?}; `fleet repos` lists them",
            arguments.repository
        );
        return Err(Failure::Usage(text));
    }
    let names = answer.locks.iter().map(|lock| lock.restic_id.clone());
    print(arguments.output, &document::locks(&answer), names, || {
        let now = Timestamp::now();
        answer
            .locks
            .iter()
            .map(|lock| render::why_locked(lock, now))
            .collect()
    });
    Ok(0)
}

pub async fn plan(hub: &HubArguments, plan: &arguments::Plan) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    match plan {
        arguments::Plan::List {
            limit,
            before,
            output,
        } => {
            let request = PlansRequest {
                plan: String::new(),
                limit: *limit,
                before: before.clone(),
            };
            list_plans(&client.plans(request).await?, *output)
        }
        arguments::Plan::Show { plan, output } => {
            let request = PlansRequest {
                plan: plan.clone(),
                ..PlansRequest::default()
            };
            show_plan(&client.plans(request).await?, plan, *output)
        }
        arguments::Plan::Approve(decision) => decide(&mut client, decision, true).await,
        arguments::Plan::Reject(decision) => decide(&mut client, decision, false).await,
    }
}

fn list_plans(answer: &PlansResponse, output: Format) -> Result<u8, Failure> {
    if answer.plans.is_empty() && matches!(output, Format::Table | Format::Wide) {
        note("no plans");
        return Ok(0);
    }
    let names = answer.plans.iter().map(|plan| plan.id.clone());
    print(output, &document::plans(answer), names, || {
        render::plans(&answer.plans, Timestamp::now())
    });
    more(output, &answer.next_before);
    let waits = answer.plans.iter().any(|plan| plan.state == "waiting");
    Ok(if waits { code::APPROVAL } else { 0 })
}

/// The one plan whose id begins with `plan`, unless what is shown would not be what is approved.
fn show_plan(answer: &PlansResponse, plan: &str, output: Format) -> Result<u8, Failure> {
    let [found] = answer.plans.as_slice() else {
        let text = match answer.plans.len() {
            0 => format!("no plan is called {plan:?}; run fleet plan list"),
            count => format!("{plan:?} is ambiguous: {count} plans begin with it; run fleet plan list"),
        };
        return Err(Failure::Usage(text));
    };
    if !plan::has_its_hash(found) {
        let text = format!(
            "what the hub shows of plan {} does not have the hash {} that an approval would name: do not approve it",
            found.id, found.hash
        );
        return Err(Failure::Changed(text));
    }
    let names = std::iter::once(found.id.clone());
    print(output, &document::plan(found), names, || {
        plan::show(found, output == Format::Wide, Timestamp::now())
    });
    let waits = found.state == "waiting";
    Ok(if waits { code::APPROVAL } else { 0 })
}

/// Where the next page begins.
pub fn more(format: Format, next: &str) {
    if !next.is_empty() && matches!(format, Format::Table | Format::Wide) {
        note(&format!("there is more: --before {next}"));
    }
}

pub async fn bind(hub: &HubArguments, binding: &Binding, accept: bool) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let request = DecideBindingRequest {
        repository: binding.repository.clone(),
        cluster: binding.cluster.clone(),
        accept,
    };
    let effect = client.decide_binding(request).await?;
    note(&cleaned(&effect).to_string());
    Ok(0)
}

async fn decide(client: &mut Client, decision: &arguments::Decision, approve: bool) -> Result<u8, Failure> {
    let request = DecidePlanRequest {
        plan: decision.plan.clone(),
        hash: decision.hash.clone(),
        approve,
    };
    client.decide(request).await?;
    if approve {
        note(
            "approved. A run will start once the lock is free; it plans again and removes nothing if the snapshots changed. Follow it with: fleet audit",
        );
    } else {
        note("rejected; the next run makes a plan of its own");
    }
    Ok(0)
}
