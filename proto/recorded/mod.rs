//! Conversations on the link as other versions have them, byte by byte: for tests of hub and spoke.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use prost::bytes::{Buf as _, BufMut as _};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What spoke and hub said to each other in the version before clusters joined by token, as that version's own code wrote it:
/// a line for each message, `>` from the spoke and `<` from the hub, its name, and its bytes in hex.
const BEFORE_JOINING: &str = include_str!("before-joining.txt");

/// A message as it was recorded.
#[derive(Clone, Debug)]
pub struct Message {
    pub from_hub: bool,
    /// Case of the body.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The recorded conversation.
pub fn before_joining() -> Vec<Message> {
    let lines = BEFORE_JOINING.lines().filter(|line| !line.starts_with('#'));
    let message = |line: &str| {
        let mut parts = line.split(' ');
        let mut part = || parts.next().unwrap();
        Message {
            from_hub: part() == "<",
            name: part().to_owned(),
            bytes: hex::decode(part()).unwrap(),
        }
    };
    lines.map(message).collect()
}

/// The same message as a later version may send it: with fields that this version does not know, in the message and in its
/// body.
pub fn later(message: &[u8]) -> Vec<u8> {
    let mut rest = message;
    let tag = varint(&mut rest);
    let length = varint(&mut rest);
    assert_eq!(
        (tag & 7, length),
        (2, rest.len() as u64),
        "a body and nothing else"
    );
    let body = [rest, &unknown()].concat();
    let mut whole = field(u32::try_from(tag >> 3).unwrap(), &body);
    whole.extend(unknown());
    whole
}

/// Fields that no version has: a number and a text.
pub fn unknown() -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, 1900 << 3);
    put(&mut bytes, 7);
    bytes.extend(field(1901, b"of a later version"));
    bytes
}

/// A message or bytes as a field.
pub fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, u64::from(number) << 3 | 2);
    put(&mut bytes, content.len() as u64);
    bytes.extend(content);
    bytes
}

fn put(bytes: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, bytes);
}

fn varint(bytes: &mut &[u8]) -> u64 {
    prost::encoding::decode_varint(bytes).unwrap()
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
