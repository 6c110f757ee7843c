//! The wire contract of the fleet: `fleet/v1/link.proto` (spoke and hub) and `fleet/v1/view.proto` (hub and its
//! readers), and what both sides must compute alike. Knows neither Kubernetes nor a runtime.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod backend;
pub mod certificate;
pub mod codec;
pub mod digest;
pub mod hold;
pub mod named;
pub mod order;
pub mod plan;
pub mod possession;
#[cfg(test)]
mod reference;
pub mod renewal;
mod rule;
pub mod text;
pub mod time;

/// Messages and services of package `fleet.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("fleet.v1");
}

/// google.protobuf.FileDescriptorSet of all files of the contract.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Oldest protocol version of this build.
pub const PROTOCOL_MIN: u32 = 2;
/// Newest protocol version of this build.
pub const PROTOCOL_MAX: u32 = 2;

/// Most bytes of one encoded message in either direction. Senders check it, because a receiver can only end the stream.
pub const MESSAGE_MAX: usize = 4 << 20;
