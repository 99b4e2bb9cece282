//! The one integration binary. Run it with `make test`, or `tests/with-servers cargo nextest run`.

mod harness;
mod source_sqlite;
mod support;
