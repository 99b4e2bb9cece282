//! What tonic and prost generate from `proto/rowgate/v1`.

#![allow(clippy::all, clippy::pedantic)]

tonic::include_proto!("rowgate.v1");

/// Descriptors of the contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rowgate_descriptor.bin"));
