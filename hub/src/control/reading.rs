//! Answers of clusters about their snapshots, on their way to a person.

use proto::v1::{AnswerPart, Question, question};
use tokio::sync::mpsc;
use tonic::Status;

use crate::access::{self, Person, Verb};
use crate::hub::Hub;
use crate::{browse, parts};

/// Passes an answer on, part by part, as far as the person may read it.
pub(super) async fn answer(
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
        if !parts::pass(hub, person, sender, part).await? {
            return Ok(());
        }
        answer.read();
    }
    Ok(())
}
