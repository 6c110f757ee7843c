//! Messages on their way to one spoke, on two lanes: what concerns leases overtakes the rest.

use futures::stream::{PollNext, select_with_strategy};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use proto::v1::HubMessage;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::error;

use crate::copies::wire;

/// Messages on each lane. A spoke that does not read its stream is let go.
const LANE: usize = 64;

type Item = Result<HubMessage, Status>;

/// As it waits on its lane: a lane has room for many, and the largest message sets how much that is.
type Waiting = Result<Box<HubMessage>, Status>;

/// The sending end.
#[derive(Clone, Debug)]
pub struct Outgoing {
    fast: mpsc::Sender<Waiting>,
    slow: mpsc::Sender<Waiting>,
    session: CancellationToken,
}

/// Both lanes of a session, and the stream that they make. A message that finds its lane full ends the session: dropped, it
/// would leave a spoke waiting that believes to be connected.
pub fn lanes(session: CancellationToken) -> (Outgoing, impl Stream<Item = Item> + Send + 'static) {
    let (fast, urgent) = mpsc::channel(LANE);
    let (slow, rest) = mpsc::channel(LANE);
    let first = |(): &mut ()| PollNext::Left;
    let stream = select_with_strategy(ReceiverStream::new(urgent), ReceiverStream::new(rest), first);
    let stream = stream.map(|waiting: Waiting| waiting.map(|message| *message));
    (Outgoing { fast, slow, session }, stream)
}

impl Outgoing {
    /// Sends about a lease.
    ///
    /// # Errors
    /// When the spoke does not read its stream, or the message is larger than a spoke takes.
    pub fn try_send(&self, item: Item) -> Result<(), Status> {
        self.put(&self.fast, item)
    }

    /// Sends about anything else.
    ///
    /// # Errors
    /// As above.
    pub fn send(&self, message: HubMessage) -> Result<(), Status> {
        self.put(&self.slow, Ok(message))
    }

    /// Whether the slow lane is less than half full: what can wait does not let a spoke go that reads slowly.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.slow.capacity() > LANE / 2
    }

    fn put(&self, lane: &mpsc::Sender<Waiting>, mut item: Item) -> Result<(), Status> {
        if let Ok(message) = &mut item {
            wire::outgoing(message);
            let length = message.encoded_len();
            if length > proto::MESSAGE_MAX {
                error!(
                    length,
                    limit = proto::MESSAGE_MAX,
                    "a message to a spoke is too large and is not sent"
                );
                return Err(Status::out_of_range("the message is too large"));
            }
        }
        lane.try_send(item.map(Box::new)).map_err(|_| {
            self.session.cancel();
            Status::resource_exhausted("the spoke does not read its stream")
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::hub_message::Body;
    use proto::v1::{LeaseGrant, LeaseRenewed, ResyncRequest};

    use super::*;

    fn message(body: Body) -> HubMessage {
        HubMessage { body: Some(body) }
    }

    #[tokio::test]
    async fn leases_overtake_the_rest() {
        let (outgoing, stream) = lanes(CancellationToken::new());
        outgoing
            .send(message(Body::Resync(ResyncRequest::default())))
            .unwrap();
        outgoing
            .try_send(Ok(message(Body::LeaseRenewed(LeaseRenewed::default()))))
            .unwrap();
        drop(outgoing);
        let order: Vec<bool> = stream
            .map(|m| matches!(m.unwrap().body, Some(Body::LeaseRenewed(_))))
            .collect()
            .await;
        assert_eq!(order, [true, false]);
    }

    #[tokio::test]
    async fn a_spoke_that_does_not_read_is_let_go_and_what_is_too_large_is_not_sent() {
        let session = CancellationToken::new();
        let (outgoing, _stream) = lanes(session.clone());
        let large = LeaseGrant {
            operation: "x".repeat(proto::MESSAGE_MAX),
            ..LeaseGrant::default()
        };
        assert!(outgoing.try_send(Ok(message(Body::LeaseGrant(large)))).is_err());
        assert!(!session.is_cancelled());
        let renewed = || Ok(message(Body::LeaseRenewed(LeaseRenewed::default())));
        assert!((0..LANE).all(|_| outgoing.try_send(renewed()).is_ok()));
        assert!(outgoing.try_send(renewed()).is_err());
        assert!(session.is_cancelled());
    }
}
