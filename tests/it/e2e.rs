//! The whole service, through its gRPC API.

mod admission;
mod bad_input;
mod damage;
mod disk;
mod exports;
mod fleet;
mod grpcio;
mod grpcurl;
mod life;
mod limits;
mod ownership;
mod readback;
mod restart;
pub mod rig;
mod streams;
