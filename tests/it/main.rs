//! The one integration binary. Run it with `make test`, or `tests/with-servers cargo nextest run`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test says what is wrong; tests read what the harness exports, and may spawn"
)]

mod conformance;
mod contract;
mod e2e;
mod formats;
mod harness;
mod leases;
mod promises;
mod queue_postgres;
mod queue_scale;
mod source_mysql;
mod source_postgres;
mod source_sqlite;
mod support;
mod tidy;
