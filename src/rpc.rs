//! The gRPC edge: handlers, conversion between the contract and the domain, errors to statuses.

pub mod convert;
pub mod pb;
pub mod reflection;
pub mod status;
