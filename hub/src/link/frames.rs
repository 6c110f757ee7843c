//! The messages of a spoke out of the body of its request. tonic's reader keeps room for the largest message of a stream for as
//! long as the stream lasts: a whole inventory for each cluster that is connected. This one gives it back.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost::bytes::{Buf as _, BytesMut};
use proto::v1::SpokeMessage;
use proto::v1::fleet_link_server::FleetLinkServer;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::LinkService;

/// Before each message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// Room for a message that is kept for the next one: deltas and heartbeats are smaller.
const KEPT: usize = 4 << 10;

/// A body on its way past the generated service.
#[derive(Clone)]
struct Taken(Arc<Mutex<Option<Body>>>);

/// The generated service, which answers but does not read.
#[derive(Clone)]
pub struct LinkServer {
    inner: FleetLinkServer<LinkService>,
}

impl LinkServer {
    /// Serves a hub's link.
    #[must_use]
    pub fn new(service: LinkService) -> LinkServer {
        LinkServer {
            inner: FleetLinkServer::new(service),
        }
    }
}

impl NamedService for LinkServer {
    const NAME: &'static str = <FleetLinkServer<LinkService> as NamedService>::NAME;
}

impl Service<Request<Body>> for LinkServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Taken(Arc::new(Mutex::new(Some(body)))));
        self.inner.call(Request::from_parts(parts, Body::default()))
    }
}

/// Messages of one stream.
pub struct Frames {
    body: Body,
    /// What has arrived and is no whole message yet.
    buffer: BytesMut,
}

impl Frames {
    /// Those of a request that came through [`LinkServer`].
    ///
    /// # Errors
    /// When they were taken before.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Frames, Status> {
        let taken = request.extensions().get::<Taken>();
        let body = taken.and_then(|taken| taken.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        body.map(Frames::new)
            .ok_or_else(|| Status::internal("the stream is read already"))
    }

    fn new(body: Body) -> Frames {
        Frames {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None` at the end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the stream breaks, or what arrives is no message.
    pub async fn next(&mut self) -> Result<Option<SpokeMessage>, Status> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(message));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                // The spoke has gone.
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended in the middle of a message")),
            };
            // A client has no trailers to send.
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// A message that has arrived as a whole.
    fn message(&mut self) -> Result<Option<SpokeMessage>, Status> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *header;
        if compressed != 0 {
            return Err(Status::unimplemented("messages must not be compressed"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > proto::MESSAGE_MAX {
            let limit = proto::MESSAGE_MAX;
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is longer than {limit}"
            )));
        }
        let Some(bytes) = rest.get(..length) else {
            let missing = length - rest.len();
            self.buffer.reserve(missing);
            return Ok(None);
        };
        let message = SpokeMessage::decode(bytes);
        let message = message.map_err(|error| Status::internal(format!("not a message: {error}")))?;
        self.buffer.advance(HEADER + length);
        if length > KEPT {
            self.buffer = BytesMut::from(&*self.buffer);
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use prost::bytes::{BufMut as _, Bytes};
    use proto::v1::spoke_message::Body as Case;
    use proto::v1::{Heartbeat, Inventory, ObjectUpdate};

    use super::*;

    fn beat(objects: u64) -> SpokeMessage {
        let beat = Heartbeat {
            digest: vec![7; 32],
            objects,
        };
        SpokeMessage {
            body: Some(Case::Heartbeat(beat)),
        }
    }

    fn inventory(bytes: usize) -> SpokeMessage {
        let update = ObjectUpdate {
            uid: "u".to_owned(),
            state: vec![1; bytes],
        };
        let inventory = Inventory {
            updates: vec![update],
            ..Inventory::default()
        };
        SpokeMessage {
            body: Some(Case::Inventory(inventory)),
        }
    }

    fn encoded(messages: &[SpokeMessage]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.put_u8(0);
            bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
            message.encode(&mut bytes).unwrap();
        }
        bytes
    }

    fn frames(parts: Vec<Vec<u8>>) -> Frames {
        let parts = parts.into_iter().map(|part| Ok::<_, Status>(Bytes::from(part)));
        let body = axum::body::Body::from_stream(stream::iter(parts));
        Frames::new(Body::new(body))
    }

    #[tokio::test]
    async fn messages_arrive_wherever_they_are_cut() {
        let messages = [beat(1), inventory(100), beat(2)];
        let whole = encoded(&messages);
        for at in 0..whole.len() {
            let (first, second) = whole.split_at(at);
            let mut frames = frames(vec![first.to_vec(), second.to_vec()]);
            for message in &messages {
                assert_eq!(frames.next().await.unwrap().as_ref(), Some(message));
            }
            assert_eq!(frames.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn room_for_an_inventory_is_given_back() {
        let bytes = encoded(&[inventory(200_000), beat(1)]);
        let mut frames = frames(bytes.chunks(16_384).map(<[u8]>::to_vec).collect());
        for message in [inventory(200_000), beat(1)] {
            assert_eq!(frames.next().await.unwrap(), Some(message));
            assert!(frames.buffer.capacity() <= KEPT, "{}", frames.buffer.capacity());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        let long = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
        for (bytes, code) in [
            (long(5 << 20), Code::OutOfRange),
            (vec![1, 0, 0, 0, 1, 0], Code::Unimplemented),
            (vec![0, 0, 0, 0, 1, 0xff], Code::Internal),
            (encoded(&[beat(1)])[..20].to_vec(), Code::Internal),
        ] {
            assert_eq!(frames(vec![bytes]).next().await.unwrap_err().code(), code);
        }
    }
}
