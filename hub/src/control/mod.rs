//! FleetControl: what people make clusters do. Each RPC that commands is one message; what all have in common is here.

mod new;
mod operations;
mod reading;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use proto::v1::command_body::What;
use proto::v1::fleet_control_server::FleetControl;
use proto::v1::{
    AnswerPart, CancelOperationRequest, CommandBody, CommandOptions, CreateRestoreRequest, FetchFileRequest,
    FindFilesRequest, GetOperationRequest, ListFolderRequest, ListOperationsRequest, ListOperationsResponse,
    ListSnapshotsRequest, Operation, PreviewRetentionRequest, Question, ReadOptions, ResumeRequest,
    RunBackupRequest, RunCheckRequest, RunRetentionRequest, SuspendRequest, UnlockRequest,
    WatchOperationRequest, question,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::operations::{operation, sees, verb_of, watch};
use crate::access::{self, Person, Verb};
use crate::browse;
use crate::commands::Record;
use crate::hub::Hub;
use crate::now;
use crate::parts;
use crate::seen::repository_of;
use crate::store::StoredDecision;

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
        new::within_backup(person, verb, &body)?;
        let record = new::record(&self.hub, person, verb, &options, body)?;
        let record = self.hub.commands.submit(record).await?;
        self.answer(&record).await
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
            let answered = reading::answer(&hub, &cluster, question, &person, names, &sender).await;
            if let Err(status) = answered {
                parts::end(&sender, status).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
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
        let page = operations::page(&self.hub, &sight, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let person = access::person(&request)?;
        let record = operations::find(&self.hub, &request.get_ref().id, &person).await?;
        self.answer(&record).await
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let person = access::person(&request)?;
        let record = operations::find(&self.hub, &request.get_ref().id, &person).await?;
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
        let id = operations::find(&self.hub, &request.get_ref().id, &person)
            .await?
            .id;
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
