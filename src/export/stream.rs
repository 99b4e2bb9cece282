//! How a row stream carries its rows, and what it promises to a client that comes back.

use serde::{Deserialize, Serialize};

/// The number is that of the contract's `RowEncoding`; resume tokens hold it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RowEncoding {
    /// `google.protobuf.ListValue`s, for people and grpcurl.
    Values = 1,
    /// Encapsulated Arrow record batches.
    ArrowIpc = 2,
    /// JSON objects, one a line.
    JsonLines = 3,
}

impl RowEncoding {
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Values, Self::ArrowIpc, Self::JsonLines]
            .into_iter()
            .find(|encoding| *encoding as u8 == number)
    }
}

/// What a stream's tokens are good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarantee {
    /// There are none: a stream that breaks starts again.
    None,
    /// Byte-exact from the spool, from any replica, until the result expires.
    Spooled,
}
