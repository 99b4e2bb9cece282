//! The gRPC edge: handlers, conversion between the contract and the domain, errors to statuses.

pub mod admin;
pub mod convert;
pub mod deadline;
pub mod export;
pub mod pb;
pub mod reflection;
pub mod server;
pub mod status;
