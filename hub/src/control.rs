//! FleetControl: what people make clusters do. Each RPC that commands is one message; what all have in common is here.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::command_body::What;
use proto::v1::fleet_control_server::FleetControl;
use proto::v1::{
    AnswerPart, CancelOperationRequest, CommandBody, CommandOptions, CommandState, CreateRestoreRequest,
    FetchFileRequest, FindFilesRequest, GetOperationRequest, ListFolderRequest, ListOperationsRequest,
    ListOperationsResponse, ListSnapshotsRequest, Operation, PreviewRetentionRequest, Question, ReadOptions,
    ResumeRequest, RunBackupRequest, RunCheckRequest, RunRetentionRequest, SuspendRequest, UnlockRequest,
    WatchOperationRequest, question,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access::{self, Person, Sight, Verb};
use crate::browse;
use crate::commands::{self, Record, State};
use crate::hub::Hub;
use crate::seen::repository_of;
use crate::store::StoredDecision;
use crate::watch::ended;
use crate::{Millis, now};

/// How long a command may wait to begin unless it says so.
const BEGIN_WITHIN: Millis = 3_600_000;
/// The longest such time: a spoke remembers for that long what it has done.
const BEGIN_WITHIN_MAX: Millis = 24 * 3_600_000;
/// Operations of one page.
const PAGE: u32 = 200;
/// Pages of the store that are read at most for one page of what a person sees.
const PAGES: usize = 50;
/// Longest id that a client may choose.
const REQUEST_ID_MAX: usize = 128;
/// Largest encoded command.
const BODY_MAX: usize = 32 << 10;

/// The service.
pub struct ControlService {
    hub: Arc<Hub>,
}

impl ControlService {
    /// A service on a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> ControlService {
        ControlService { hub }
    }

    /// Takes a command in.
    async fn command(
        &self,
        person: &Person,
        verb: Verb,
        options: Option<CommandOptions>,
        what: Option<What>,
    ) -> Result<Response<Operation>, Status> {
        let options = options.unwrap_or_default();
        let body = CommandBody { what };
        within_backup(person, verb, &body)?;
        let record = self.record(person, verb, &options, body)?;
        let record = self.hub.commands.submit(record).await?;
        self.answer(&record).await
    }

    /// A new command, checked against what the hub knows.
    fn record(
        &self,
        person: &Person,
        verb: Verb,
        options: &CommandOptions,
        body: CommandBody,
    ) -> Result<Record, Status> {
        let who = &*person.name;
        let about = commands::about(&body)
            .ok_or_else(|| Status::invalid_argument("name the resource: cluster, namespace and name"))?;
        let cluster = options.cluster.as_str();
        let subject = format!("{}/{}", about.name.namespace, about.name.name);
        let (known, found, whole) = self.hub.read(|inventory| {
            let member = inventory.member(cluster);
            let found = commands::find(inventory, cluster, &about).map(|held| {
                let (id, name) = repository_of(held);
                (id.to_owned(), name.to_owned())
            });
            (
                member.is_some(),
                found,
                member.is_some_and(|member| member.complete()),
            )
        });
        let names = found.as_ref().map(|(id, name)| [id.as_str(), name.as_str()]);
        let names = names.as_ref().map_or(&[][..], |names| &names[..]);
        if !person.sight(verb).takes(cluster, &about.name.namespace, names) {
            let what = format!("{cluster}/{subject}");
            return Err(access::out_of_scope(person, verb, &what));
        }
        if !known {
            return Err(Status::not_found(format!(
                "there is no cluster {cluster:?}; `fleet clusters` lists them"
            )));
        }
        // What the hub does not know may have been made a moment ago only where its picture has gaps.
        if found.is_none() && whole {
            return Err(Status::not_found(format!(
                "cluster {cluster} has no {} {subject}",
                about.kind.as_str()
            )));
        }
        let (restic_id, repository) = found.unwrap_or_default();
        let within = match Millis::try_from(options.begin_within_ms).unwrap_or(Millis::MAX) {
            0 => BEGIN_WITHIN,
            within if within <= BEGIN_WITHIN_MAX => within,
            _ => {
                return Err(Status::invalid_argument(
                    "an operation waits for 24 hours at most to begin",
                ));
            }
        };
        let request = options.request_id.as_str();
        if request.len() > REQUEST_ID_MAX {
            return Err(Status::invalid_argument("a request id has 128 bytes at most"));
        }
        let encoded = body.encode_to_vec();
        if encoded.len() > BODY_MAX {
            return Err(Status::invalid_argument(
                "the command is too large: name fewer paths",
            ));
        }
        let created = now();
        Ok(Record {
            id: commands::id(created, random()?),
            cluster: cluster.to_owned(),
            what: about.what.to_owned(),
            subject,
            who: who.to_owned(),
            request: (!request.is_empty()).then(|| format!("{who} {request}")),
            created,
            expires: created.saturating_add(within),
            changed: created,
            body: encoded,
            restic_id,
            repository,
            ..Record::default()
        })
    }

    async fn answer(&self, record: &Record) -> Result<Response<Operation>, Status> {
        let connected = self.hub.commands.connected().await;
        Ok(Response::new(operation(record, &connected)))
    }

    /// Asks a cluster about its snapshots, once that is in the audit.
    async fn read(
        &self,
        person: Arc<Person>,
        options: ReadOptions,
        what: Option<question::What>,
    ) -> Result<Response<Parts>, Status> {
        let cluster = options.cluster;
        let question = Question {
            repository: options.repository,
            what,
        };
        let name = question.repository.clone().unwrap_or_default();
        let subject = format!("{cluster}/{}/{}", name.namespace, name.name);
        let found = self.hub.read(|inventory| {
            let held = inventory.index().binding(&subject)?;
            let (id, name) = repository_of(held);
            Some([id.to_owned(), name.to_owned()])
        });
        let names: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
        let sight = person.sight(Verb::Browse);
        if !sight.takes(&cluster, &name.namespace, &names) {
            return Err(access::out_of_scope(&person, Verb::Browse, &subject));
        }
        let Some([restic_id, _]) = &found else {
            return Err(Status::not_found(format!(
                "the hub knows no ResticRepository {subject:?}; `fleet repos -o wide` shows them"
            )));
        };
        let decision = StoredDecision {
            at: now(),
            who: person.name.to_string(),
            what: "browse".to_owned(),
            subject: format!("{} {subject}", browse::words(&question)),
            restic_id: restic_id.clone(),
            cluster: cluster.clone(),
            namespace: name.namespace,
            ..StoredDecision::default()
        };
        let written = self.hub.store().decide(decision).await;
        written.map_err(|error| Status::unavailable(error.to_string()))?;
        let (sender, stream) = mpsc::channel(1);
        let (hub, names) = (self.hub.clone(), names.into_iter().map(str::to_owned).collect());
        tokio::spawn(async move {
            let answered = answer(&hub, &cluster, question, &person, names, &sender).await;
            if let Err(status) = answered {
                // An error means that the reader has gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    /// The one operation that is meant.
    async fn find(&self, id: &str, person: &Person) -> Result<Record, Status> {
        let found = self.hub.store().commands_named(id).await;
        let mut found = found.map_err(|error| Status::unavailable(error.to_string()))?;
        let sight = person.sight(Verb::See);
        found.retain(|record| sees(&sight, record));
        let exact = found.iter().position(|record| record.id == id);
        match (exact, found.len()) {
            (Some(at), _) => Ok(found.swap_remove(at)),
            (None, 1) => Ok(found.swap_remove(0)),
            (None, 0) => Err(Status::not_found(format!(
                "there is no operation {id:?}; `fleet operations list` shows them"
            ))),
            (None, _) => Err(Status::invalid_argument(format!(
                "several operations fit {id:?}; write more of the id"
            ))),
        }
    }
}

/// Whether an operation is in a scope.
fn sees(sight: &Sight, record: &Record) -> bool {
    let names = [record.restic_id.as_str(), record.repository.as_str()];
    sight.takes(&record.cluster, record.namespace(), &names)
}

/// The right that an operation needs.
fn verb_of(record: &Record) -> Verb {
    match record.what.as_str() {
        "create restore" => Verb::Restore,
        _ => Verb::Run,
    }
}

/// Which snapshots are the backup's only its cluster knows: a right in a scope is one to restore the latest of them.
fn within_backup(person: &Person, verb: Verb, body: &CommandBody) -> Result<(), Status> {
    if !commands::names_snapshot(body) || person.sight(verb).is_everything() {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "a snapshot by its id may be one of another backup: leave the snapshot out, and the latest of the backup is \
         restored, or have the right {verb} over the whole fleet"
    )))
}

fn random() -> Result<u32, Status> {
    let mut bytes = [0; 4];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Status::internal("no random numbers"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// An operation as people see it.
fn operation(record: &Record, connected: &HashSet<Arc<str>>) -> Operation {
    let connected = connected.contains(record.cluster.as_str());
    let text = match record.state {
        State::Waiting => format!(
            "cluster {} is not connected; it is sent when it is back",
            record.cluster
        ),
        State::Sent if !connected && record.text.is_empty() => format!(
            "cluster {} is not connected; whether it has received this is known when it is back",
            record.cluster
        ),
        _ => record.text.clone(),
    };
    Operation {
        id: record.id.clone(),
        cluster: record.cluster.clone(),
        what: record.what.clone(),
        subject: record.subject.clone(),
        who: record.who.clone(),
        created: Some(from_unix_millis(record.created)),
        expires: Some(from_unix_millis(record.expires)),
        state: state(record.state).into(),
        text,
        object: record.object.clone(),
        changed: Some(from_unix_millis(record.changed)),
        ended: record.ended.map(from_unix_millis),
        cancelled_by: record.cancelled_by.clone(),
        connected,
    }
}

fn state(state: State) -> CommandState {
    match state {
        State::Waiting => CommandState::Waiting,
        State::Sent => CommandState::Sent,
        State::Accepted => CommandState::Accepted,
        State::Running => CommandState::Running,
        State::Done => CommandState::Done,
        State::Failed => CommandState::Failed,
        State::Refused => CommandState::Refused,
        State::Expired => CommandState::Expired,
        State::Cancelled => CommandState::Cancelled,
    }
}

/// Where the next page begins.
fn cursor(text: &str) -> Result<Option<(Millis, String)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.split_once('.');
    let parts = parts.and_then(|(created, id)| Some((created.parse().ok()?, id.to_owned())));
    parts
        .map(Some)
        .ok_or_else(|| Status::invalid_argument("the page token is none that the hub has given"))
}

/// The RPCs that command: their requests, and the case of the body that each carries.
macro_rules! commands {
    ($($rpc:ident $request:ident $what:ident $verb:ident),+ $(,)?) => {$(
        fn $rpc<'s, 'f>(
            &'s self,
            request: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<Operation>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async move {
                let person = access::person(&request)?;
                let $request { options, command } = request.into_inner();
                self.command(&person, Verb::$verb, options, command.map(What::$what)).await
            })
        }
    )+};
}

/// The RPCs that read: their requests, and the case of the question that each carries.
macro_rules! reads {
    ($($rpc:ident $request:ident $what:ident),+ $(,)?) => {$(
        fn $rpc<'s, 'f>(
            &'s self,
            request: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<Parts>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async move {
                let person = access::person(&request)?;
                let $request { options, question } = request.into_inner();
                let what = question.map(question::What::$what);
                self.read(person, options.unwrap_or_default(), what).await
            })
        }
    )+};
}

#[tonic::async_trait]
impl FleetControl for ControlService {
    type WatchOperationStream = Pin<Box<dyn Stream<Item = Result<Operation, Status>> + Send>>;
    type ListSnapshotsStream = Parts;
    type ListFolderStream = Parts;
    type FindFilesStream = Parts;
    type FetchFileStream = Parts;

    reads! {
        list_snapshots ListSnapshotsRequest ListSnapshots,
        list_folder ListFolderRequest ListFolder,
        find_files FindFilesRequest FindFiles,
        fetch_file FetchFileRequest FetchFile,
    }

    commands! {
        run_backup RunBackupRequest RunBackup Run,
        run_retention RunRetentionRequest RunRetention Run,
        preview_retention PreviewRetentionRequest PreviewRetention Run,
        run_check RunCheckRequest RunCheck Run,
        unlock UnlockRequest Unlock Run,
        suspend SuspendRequest Suspend Run,
        resume ResumeRequest Resume Run,
        create_restore CreateRestoreRequest CreateRestore Restore,
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let ListOperationsRequest {
            clusters,
            open,
            limit,
            before,
        } = request.into_inner();
        let limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
        let (mut before, mut seen, mut more) = (cursor(&before)?, Vec::new(), true);
        for _ in 0..PAGES {
            let room = limit.saturating_sub(u32::try_from(seen.len()).unwrap_or(limit));
            if room == 0 || !more {
                break;
            }
            let found = self
                .hub
                .store()
                .commands(clusters.clone(), open, room, before.clone())
                .await;
            let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
            more = u32::try_from(found.len()).is_ok_and(|count| count == room);
            before = found
                .last()
                .map(|last| (last.created, last.id.clone()))
                .or(before);
            seen.extend(found.into_iter().filter(|record| sees(&sight, record)));
        }
        let connected = self.hub.commands.connected().await;
        let next = before.filter(|_| more);
        Ok(Response::new(ListOperationsResponse {
            as_of: Some(from_unix_millis(now())),
            next_page: next.map_or_else(String::new, |(created, id)| format!("{created}.{id}")),
            operations: seen.iter().map(|record| operation(record, &connected)).collect(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let person = access::person(&request)?;
        let record = self.find(&request.get_ref().id, &person).await?;
        self.answer(&record).await
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let person = access::person(&request)?;
        let record = self.find(&request.get_ref().id, &person).await?;
        let verb = verb_of(&record);
        if !sees(&person.sight(verb), &record) {
            let what = format!("{}/{}", record.cluster, record.subject);
            return Err(access::out_of_scope(&person, verb, &what));
        }
        let record = self.hub.commands.cancel(&record.id, &person.name).await?;
        self.answer(&record).await
    }

    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let person = access::person(&request)?;
        let id = self.find(&request.get_ref().id, &person).await?.id;
        let (sender, stream) = mpsc::channel(4);
        let hub = self.hub.clone();
        tokio::spawn(async move {
            // An error means that the reader has gone.
            let _ = watch(&hub, &id, &person, &sender).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Parts = Pin<Box<dyn Stream<Item = Result<AnswerPart, Status>> + Send>>;

/// Passes an answer on, part by part, as far as the person may read it.
async fn answer(
    hub: &Hub,
    cluster: &str,
    question: Question,
    person: &Person,
    names: Vec<String>,
    sender: &mpsc::Sender<Result<AnswerPart, Status>>,
) -> Result<(), Status> {
    let sight = person.sight(Verb::Browse);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let list = matches!(question.what, Some(question::What::ListSnapshots(_)));
    let mut answer = hub.browsing.ask(cluster, question, &person.name)?;
    let mut known = list;
    while let Some(mut part) = answer.next().await? {
        let before = part.snapshots.len();
        part.snapshots
            .retain(|snapshot| browse::reads(&sight, snapshot, &names));
        // Of every other answer the first part says which snapshot it is about.
        known |= !part.snapshots.is_empty();
        if !known || (!list && part.snapshots.len() < before) {
            return Err(access::out_of_scope(person, Verb::Browse, "this snapshot"));
        }
        if sender.send(Ok(part)).await.is_err() {
            return Ok(());
        }
        answer.read();
    }
    Ok(())
}

type Shown = mpsc::Sender<Result<Operation, Status>>;

/// The operation, if the person may still see it.
async fn visible(hub: &Hub, id: &str, person: &Person) -> Result<Record, Status> {
    let found = hub.store().command(id).await;
    let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
    let record = found.ok_or_else(|| Status::not_found("the operation was removed"))?;
    let person = hub.authority.again(person, now())?;
    if sees(&person.sight(Verb::See), &record) {
        Ok(record)
    } else {
        let what = format!("{}/{}", record.cluster, record.subject);
        Err(access::out_of_scope(&person, Verb::See, &what))
    }
}

/// Sends an operation when it looks different, until it has ended, its reader has gone, or may not see it any more.
async fn watch(
    hub: &Hub,
    id: &str,
    person: &Person,
    sender: &Shown,
) -> Result<(), mpsc::error::SendError<Result<Operation, Status>>> {
    let mut changes = hub.commands.changes();
    let mut rights = hub.authority.changes();
    let mut shown = None;
    loop {
        changes.mark_unchanged();
        rights.mark_unchanged();
        let record = match visible(hub, id, person).await {
            Ok(record) => record,
            Err(status) => return sender.send(Err(status)).await,
        };
        let seen = operation(&record, &hub.commands.connected().await);
        if shown.as_ref() != Some(&seen) {
            sender.send(Ok(seen.clone())).await?;
            shown = Some(seen);
        }
        if record.state.is_end() {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            changed = rights.changed() => if changed.is_err() { return Ok(()) },
            () = ended(person.until.map(|until| until.saturating_sub(now()))) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_as_it_was_written() {
        assert_eq!(cursor("").unwrap(), None);
        assert_eq!(cursor("17.abc").unwrap(), Some((17, "abc".to_owned())));
        assert!(cursor("abc").is_err() && cursor("x.abc").is_err());
    }

    #[test]
    fn what_waits_for_a_cluster_says_so() {
        let record = |state| Record {
            cluster: "a".to_owned(),
            state,
            ..Record::default()
        };
        let near: HashSet<Arc<str>> = HashSet::from(["a".into()]);
        let text = |state, connected: &HashSet<Arc<str>>| operation(&record(state), connected).text;
        let far = HashSet::new();
        assert!(text(State::Waiting, &far).contains("a is not connected"));
        assert!(text(State::Sent, &far).contains("whether it has received"));
        assert_eq!(text(State::Sent, &near), "");
    }
}
