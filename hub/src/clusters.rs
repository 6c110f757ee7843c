//! What an operator decides about a cluster as a whole. Written to the store before it is answered.

use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::ForgetClusterResponse;
use tonic::Status;
use tracing::info;

use crate::access::{Person, Verb, out_of_scope};
use crate::hub::Hub;
use crate::inventory::{Inventory, Member, NotMeant};
use crate::lock::Command;
use crate::now;
use crate::seen::Seen;
use crate::store::StoredDecision;

/// Removes a cluster, or only answers what that would remove.
///
/// # Errors
/// NotFound, FailedPrecondition while it is connected, Unavailable when the store fails.
pub async fn forget(
    hub: &Hub,
    cluster: &str,
    confirm: bool,
    person: &Person,
) -> Result<ForgetClusterResponse, Status> {
    let who = &person.name;
    let sight = person.sight(Verb::Enrol);
    let found = hub.read(|inventory| {
        let member = Seen::new(inventory, &sight).member(cluster);
        member.map(|m| (m.name.clone(), describe(m), m.live.is_some()))
    });
    let Some((name, mut answer, connected)) = found else {
        let text = format!("there is no cluster {cluster:?}; `fleet clusters` lists them");
        return Err(Status::not_found(text));
    };
    may_enrol(person, cluster)?;
    let busy = || {
        let text =
            format!("cluster {name} is connected: stop its spoke first, or it reports everything again");
        Status::failed_precondition(text)
    };
    if connected {
        return Err(busy());
    }
    if !confirm {
        return Ok(answer);
    }
    if !hub.change(|inventory| inventory.begin_forget(&name)) {
        return Err(busy());
    }
    let _writing = hub.writing.lock().await;
    let decision = StoredDecision {
        before: format!(
            "{} repositories, {} backups, {} policies",
            answer.repositories,
            answer.backups,
            answer.policies.len()
        ),
        ..decision(person, "forget-cluster", &name, &name)
    };
    let written = hub.store().forget(&name, decision).await;
    hub.change(|inventory| inventory.end_forget(&name, written.is_ok()));
    written.map_err(|error| Status::unavailable(error.to_string()))?;
    let bindings = hub
        .locks
        .ask(|reply| Command::Forget(name.clone(), who.clone(), reply));
    let bindings = bindings.await??;
    hub.commands
        .forget(&name)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    info!(cluster = %name, %who, bindings, policies = answer.policies.len(), "a cluster was forgotten");
    answer.forgotten = true;
    Ok(answer)
}

fn decision(person: &Person, what: &str, subject: &str, cluster: &str) -> StoredDecision {
    StoredDecision {
        at: now(),
        who: person.name.to_string(),
        what: what.to_owned(),
        subject: subject.to_owned(),
        cluster: cluster.to_owned(),
        ..StoredDecision::default()
    }
}

fn may_enrol(person: &Person, cluster: &str) -> Result<(), Status> {
    if person.sight(Verb::Enrol).takes_cluster(cluster) {
        Ok(())
    } else {
        Err(out_of_scope(person, Verb::Enrol, "this cluster"))
    }
}

fn describe(member: &Member) -> ForgetClusterResponse {
    let policies = member.objects.values().filter(|held| held.policy().is_some());
    let mut policies: Vec<String> = policies.map(|held| held.local_name().to_owned()).collect();
    policies.sort();
    ForgetClusterResponse {
        policies,
        repositories: member.repositories,
        backups: member.backups,
        last_heard: member.last_heard.map(from_unix_millis),
        forgotten: false,
    }
}

fn not_meant(cluster: &str, uid: &str, not: &NotMeant) -> Status {
    match not {
        NotMeant::Name => Status::not_found(format!(
            "there is no cluster {cluster:?}; `fleet clusters` lists them"
        )),
        NotMeant::Uid { present, rivals } if rivals.is_empty() => Status::failed_precondition(format!(
            "{cluster} is connected, with uid {present}, and no other cluster has asked for its name since this hub started; a \
             wrong uid would cut it off, so {uid} is taken when a cluster with it has tried to join or to connect"
        )),
        NotMeant::Uid { present, rivals } => Status::failed_precondition(format!(
            "{uid} has not asked to be {cluster}: it has uid {present}, and these have asked for its name: {rivals}"
        )),
    }
}

/// Decides which of two clusters has a name.
///
/// # Errors
/// NotFound, InvalidArgument without a uid, FailedPrecondition for one that has not asked while the cluster is here,
/// Unavailable when the store fails.
pub async fn accept(hub: &Hub, cluster: &str, uid: &str, person: &Person) -> Result<(), Status> {
    may_enrol(person, cluster)?;
    if uid.is_empty() {
        return Err(Status::invalid_argument(
            "name the uid of the cluster's namespace kube-system",
        ));
    }
    let name: Arc<str> = cluster.into();
    let decision = decision(person, "accept-cluster", &format!("{cluster} {uid}"), cluster);
    // Written with the cluster.
    hub.change(|inventory: &mut Inventory| inventory.accept(&name, uid, decision))
        .map_err(|not| not_meant(cluster, uid, &not))?;
    hub.end(cluster);
    hub.flush()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    info!(cluster, uid, who = %person.name, "a cluster was accepted");
    Ok(())
}
