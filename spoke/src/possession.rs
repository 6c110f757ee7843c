//! Proves to the hub that this cluster can open a repository. The master key is read when it is asked for, held in memory
//! for one signature, and never written, logged or sent.

use std::sync::{Arc, Mutex, PoisonError};

use proto::plan::is_id;
use proto::possession::{NONCE, prove};
use proto::v1::spoke_message::Body;
use proto::v1::{PossessionChallenge, PossessionProof, StoreProbe};
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::context::Context;
use crate::probe::{self, Held};
use crate::restic::Restic;
use crate::world::{Index, Key};

/// Questions that wait. The hub has fewer open at a time, and asks again.
const WAITING: usize = 64;

/// What the hub asks about a repository, which is opened for it.
#[derive(Debug)]
pub enum Question {
    /// For proof that this cluster can open it.
    Possession(PossessionChallenge),
    /// In which store it lies.
    Probe(StoreProbe),
}

/// The hub's questions, and our answers.
#[derive(Debug)]
pub struct Possession {
    questions: mpsc::Sender<Question>,
    answers: Mutex<Vec<Body>>,
    changed: Notify,
}

/// The other end of the questions. Shared by all starts of the part that answers.
pub type Questions = AsyncMutex<mpsc::Receiver<Question>>;

impl Possession {
    /// Nothing asked yet.
    #[must_use]
    pub fn new() -> (Arc<Possession>, Questions) {
        let (questions, receiver) = mpsc::channel(WAITING);
        let possession = Possession {
            questions,
            answers: Mutex::default(),
            changed: Notify::new(),
        };
        (Arc::new(possession), AsyncMutex::new(receiver))
    }

    /// The hub asks.
    pub fn asked(&self, question: Question) {
        // One that is dropped is asked again.
        let _ = self.questions.try_send(question);
    }

    /// Resolves when there is an answer.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the hub is to be answered.
    pub fn take(&self) -> Vec<Body> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, answer: Body) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.truncate(WAITING);
        answers.push(answer);
        drop(answers);
        self.changed.notify_one();
    }
}

/// Answers one question after another, until `stop`.
pub async fn run(
    possession: Arc<Possession>,
    questions: Arc<Questions>,
    context: Arc<Context>,
    restic: Arc<dyn Restic>,
    stop: CancellationToken,
) {
    let work = async {
        let mut questions = questions.lock().await;
        let mut held = Held::default();
        while let Some(question) = questions.recv().await {
            let challenge = match question {
                Question::Possession(challenge) => challenge,
                Question::Probe(asked) => {
                    let answer = probe::answer((&context, &restic), &mut held, asked).await;
                    if let Some(answer) = answer {
                        possession.put(Body::StoreProbeAnswer(answer));
                    }
                    continue;
                }
            };
            let proof = match answer(&context, restic.as_ref(), &challenge).await {
                Ok(proof) => proof,
                Err(error) => {
                    debug!(repository = challenge.restic_id, error, "no proof for the hub");
                    PossessionProof {
                        restic_id: challenge.restic_id,
                        nonce: challenge.nonce,
                        error,
                        ..PossessionProof::default()
                    }
                }
            };
            possession.put(Body::PossessionProof(proof));
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn answer(
    context: &Context,
    restic: &dyn Restic,
    challenge: &PossessionChallenge,
) -> Result<PossessionProof, String> {
    let id = challenge.restic_id.as_str();
    if !is_id(id) || challenge.nonce.len() != NONCE {
        return Err("the question is malformed".to_owned());
    }
    let repositories = context.world.repositories.by(Index::ResticId, &Key::new("", id));
    let mut last = "no ResticRepository of this cluster has this id".to_owned();
    // Several resources may lead to it, with different credentials.
    for (key, repository) in repositories {
        match open(context, restic, &repository).await {
            Ok((found, master)) if found == id => {
                return prove(&master, &context.cluster, id, &challenge.nonce).map_err(|e| e.to_string());
            }
            Ok(_) => last = format!("{key}: another repository is there now"),
            Err(error) => last = format!("{key}: {error}"),
        }
    }
    Err(last)
}

async fn open(
    context: &Context,
    restic: &dyn Restic,
    repository: &crds::ResticRepository,
) -> Result<(String, proto::possession::MasterKey), String> {
    let credentials = crate::credentials::read(context, repository).await;
    let credentials = credentials
        .map_err(|error| format!("the Secret could not be read: {error}"))?
        .map_err(|error| error.to_string())?;
    let id = restic.id(&credentials).await.map_err(|e| e.to_string())?;
    let master = restic.master_key(&credentials).await.map_err(|e| e.to_string())?;
    Ok((id, master))
}
