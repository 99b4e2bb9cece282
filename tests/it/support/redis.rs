//! A key prefix of its own in the shared Redis. Nothing in the service uses Redis yet: leases will.

use super::{server_env, unique_name};

/// One Redis serves all tests: each keeps to keys that begin with its `prefix`.
pub struct Database {
    pub url: String,
    pub prefix: String,
}

pub fn database() -> Database {
    Database {
        url: server_env("ROWGATE_TEST_REDIS_URL"),
        prefix: unique_name(),
    }
}
