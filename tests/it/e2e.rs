//! The whole service, through its gRPC API.

mod bad_input;
mod exports;
mod grpcio;
mod grpcurl;
mod life;
mod readback;
mod restart;
mod rig;
mod streams;
