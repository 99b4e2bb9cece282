//! The whole service, through its gRPC API.

mod admission;
mod bad_input;
mod damage;
mod deadlines;
mod demo;
mod disk;
mod exports;
mod fleet;
mod grpcio;
mod grpcurl;
mod life;
mod limits;
mod listing;
mod ownership;
mod readback;
mod restart;
pub mod rig;
mod streams;
