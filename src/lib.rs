//! Rowgate exports large query results: as files, and as streams of rows.
//!
//! A tour in reading order. `ARCHITECTURE.md` has what lies between the modules.
//!
//! 1. [`export`]: the domain. Ids, spec, the state machine, progress, limits, and [`export::Failure`], the one value that
//!    says why anything failed. It imports nothing of ours.
//! 2. [`pipeline`]: read, transform and render, write. One export's threads, and the bounded queues between them. What it is
//!    made of:
//!    - [`source`]: a query at PostgreSQL, MySQL or SQLite becomes Arrow batches;
//!    - [`transform`]: columns and filters as SQL expressions, compiled once;
//!    - [`format`](mod@format): batches become the bytes of a file, of a row stream's messages, or of a spool;
//!    - [`storage`]: results, visible only when complete.
//! 3. [`queue`]: which exports exist, in which state, and who owns them. SQLite or PostgreSQL behind one trait.
//! 4. [`lease`]: whether an owner is alive, and how long it may believe that a job is its own; locks and rates for the whole
//!    cluster. In process or in Redis behind one trait.
//! 5. [`run`]: one owned job from its first row to its end in the job store. Used by the next two, which never meet.
//! 6. [`worker`]: takes jobs from the queue; puts back those of dead owners; removes what has been kept long enough.
//! 7. [`service`]: the use cases. Submit, wait, stream, download, cancel, and the limits.
//! 8. [`rpc`]: gRPC to use cases and back.
//! 9. [`config`]: what the operator decided. [`app`]: builds and wires all parts, serves, drains. [`cli`]: what can be typed, and
//!    the client's half of it. [`task`]: how tasks and threads are started.

pub mod app;
pub mod cli;
pub mod config;
pub mod export;
pub mod format;
pub mod lease;
pub mod pipeline;
pub mod queue;
pub mod rpc;
pub mod run;
pub mod service;
pub mod source;
pub mod storage;
pub mod task;
pub mod transform;
pub mod worker;
