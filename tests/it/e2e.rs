//! The whole service, through its gRPC API.

mod exports;
mod readback;
