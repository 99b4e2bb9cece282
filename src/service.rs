//! The use cases behind the gRPC surface.

pub mod tokens;
