//! What tonic and prost generate from `proto/rowgate/v1`, except `ValueRows`: see [`encoded_rows`].

#![allow(clippy::all, clippy::pedantic)]

pub mod encoded_rows;

pub use encoded_rows::EncodedRows;

tonic::include_proto!("rowgate.v1");

/// Descriptors of the contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rowgate_descriptor.bin"));
