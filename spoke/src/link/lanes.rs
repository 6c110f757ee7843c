//! What waits to be sent about leases and creations, in the order of its urgency, and the two lanes of the stream.
//! Resources travel on the slow lane part by part; the fast lane overtakes them between two parts.

use std::collections::VecDeque;

use futures::Stream;
use futures::stream::{PollNext, select_with_strategy};
use prost::Message as _;
use proto::v1::spoke_message::Body;
use proto::v1::{LeaseRelease, SpokeMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

/// Messages on the fast lane.
const FAST: usize = 16;
/// Parts on the slow lane, besides the one that is being written.
const SLOW: usize = 1;

/// The sending ends of both lanes.
pub struct Lanes {
    pub fast: mpsc::Sender<SpokeMessage>,
    pub slow: mpsc::Sender<SpokeMessage>,
}

/// Both lanes, and the stream that they make.
pub fn lanes() -> (Lanes, impl Stream<Item = SpokeMessage> + Send + 'static) {
    let (fast, urgent) = mpsc::channel(FAST);
    let (slow, bulk) = mpsc::channel(SLOW);
    let first = |(): &mut ()| PollNext::Left;
    let stream = select_with_strategy(ReceiverStream::new(urgent), ReceiverStream::new(bulk), first);
    (Lanes { fast, slow }, stream)
}

/// Messages of the fast lane that are not on it yet. Renewals do not wait for the parts of a plan.
#[derive(Default)]
pub struct Waiting {
    short: VecDeque<Body>,
    /// Plans and the releases that follow them, in order.
    plans: VecDeque<Body>,
    /// Answers to people's questions.
    answers: VecDeque<Body>,
}

impl Extend<Body> for Waiting {
    fn extend<T: IntoIterator<Item = Body>>(&mut self, bodies: T) {
        bodies.into_iter().for_each(|body| self.push(body));
    }
}

impl Waiting {
    /// Takes a message in. One that no receiver would take is cut or dropped here, because the receiver could only end the
    /// session, and the same message would be sent in the next one.
    pub fn push(&mut self, body: Body) {
        let Some(body) = bounded(body) else { return };
        match body {
            Body::PlanPart(_) | Body::LeaseRelease(_) => self.plans.push_back(body),
            Body::BrowsePart(_) => self.answers.push_back(body),
            body => self.short.push_back(body),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.short.is_empty() && self.plans.is_empty() && self.answers.is_empty()
    }

    /// What is sent next.
    pub fn pop(&mut self) -> Option<SpokeMessage> {
        let body = self.short.pop_front().or_else(|| self.plans.pop_front());
        let body = body.or_else(|| self.answers.pop_front())?;
        Some(SpokeMessage { body: Some(body) })
    }
}

fn bounded(body: Body) -> Option<Body> {
    let message = SpokeMessage { body: Some(body) };
    let length = message.encoded_len();
    let body = message.body?;
    if length <= proto::MESSAGE_MAX {
        return Some(body);
    }
    match body {
        Body::LeaseRelease(mut release) => {
            // The outcome counts more than messages about it.
            warn!(
                operation = release.operation,
                length, "the plan of a run is too large to be sent and is left out"
            );
            release.plan.clear();
            if let Some(outcome) = &mut release.outcome {
                outcome.message = outcome.message.chars().take(4096).collect();
                outcome.unmatched.truncate(1000);
                outcome.policies.truncate(1000);
                outcome.faults.truncate(1000);
            }
            let release = SpokeMessage {
                body: Some(Body::LeaseRelease(release)),
            };
            if release.encoded_len() <= proto::MESSAGE_MAX {
                release.body
            } else {
                without_outcome(release.body)
            }
        }
        _ => {
            warn!(length, "a message to the hub is too large and is dropped");
            None
        }
    }
}

fn without_outcome(body: Option<Body>) -> Option<Body> {
    match body? {
        Body::LeaseRelease(release) => Some(Body::LeaseRelease(LeaseRelease {
            outcome: None,
            plan_bytes: 0,
            ..release
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use proto::v1::{Heartbeat, LeaseRenew, PlanPart};

    use super::*;

    fn message(body: Body) -> SpokeMessage {
        SpokeMessage { body: Some(body) }
    }

    #[tokio::test]
    async fn leases_overtake_what_is_queued_about_resources() {
        let (lanes, stream) = lanes();
        let bulk = message(Body::Heartbeat(Heartbeat::default()));
        lanes.slow.send(bulk).await.unwrap();
        lanes
            .fast
            .send(message(Body::LeaseRenew(LeaseRenew::default())))
            .await
            .unwrap();
        drop(lanes);
        let order: Vec<bool> = stream
            .map(|m| matches!(m.body, Some(Body::LeaseRenew(_))))
            .collect()
            .await;
        assert_eq!(order, [true, false]);
    }

    #[test]
    fn renewals_overtake_the_parts_of_a_plan() {
        let mut waiting = Waiting::default();
        waiting.push(Body::PlanPart(PlanPart::default()));
        waiting.push(Body::LeaseRelease(LeaseRelease::default()));
        waiting.push(Body::LeaseRenew(LeaseRenew::default()));
        let order: Vec<Body> = std::iter::from_fn(|| waiting.pop()?.body).collect();
        assert!(matches!(
            order.as_slice(),
            [Body::LeaseRenew(_), Body::PlanPart(_), Body::LeaseRelease(_)]
        ));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_release_always_fits() {
        let mut waiting = Waiting::default();
        waiting.push(Body::LeaseRelease(LeaseRelease {
            operation: "job".to_owned(),
            token: 7,
            plan: vec![1; proto::MESSAGE_MAX],
            outcome: Some(proto::v1::OperationOutcome {
                unmatched: vec!["p".repeat(100); 100_000],
                ..Default::default()
            }),
            ..LeaseRelease::default()
        }));
        let message = waiting.pop().unwrap();
        assert!(message.encoded_len() <= proto::MESSAGE_MAX);
        let Some(Body::LeaseRelease(release)) = message.body else {
            panic!()
        };
        assert_eq!((release.token, release.plan.len()), (7, 0));
        assert!(release.outcome.is_some());
        waiting.push(Body::PlanPart(PlanPart {
            data: vec![1; proto::MESSAGE_MAX],
            ..PlanPart::default()
        }));
        assert!(waiting.is_empty());
    }
}
