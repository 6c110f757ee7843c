//! Protobuf for streams that are open for days and mostly still. tonic's own keeps 8 KiB for each direction of each stream: with
//! a thousand clusters, more than what is known of some hundred of them.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Bytes that a stream keeps for its messages: most are smaller, and for a larger one it grows.
const KEPT: usize = 1 << 10;
/// Encoded messages that wait are sent at this many bytes: as tonic has it.
const SENT: usize = 32 << 10;

/// Codec of all services of the contract.
#[derive(Debug)]
pub struct Sparing<T, U> {
    both: PhantomData<(T, U)>,
}

impl<T, U> Default for Sparing<T, U> {
    fn default() -> Self {
        Sparing { both: PhantomData }
    }
}

impl<T, U> Codec for Sparing<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(KEPT, SENT))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(KEPT, SENT))
    }
}
