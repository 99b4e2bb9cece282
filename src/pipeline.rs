//! Read -> bounded queue -> transform + render x N -> bounded queue -> write.
//!
//! Owns the threads of one export, the queues between them, and the order of rows. Refuses to know about jobs, leases
//! and clients: it gets a source, a way to prepare the stages once the schema is known, and a sink; it says how much
//! went through, or the first failure. The same stages fill a file or a row stream: only the [`Sink`] differs.

mod bounded;
mod file_sink;
mod meter;
mod plan;
mod replay;
mod stages;
mod stream_sink;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    export::{ColumnFidelity, Failure, Field, Limits},
    format::{self, Render, Rendered},
    source::{ReadOptions, ReadSummary},
    task,
    transform::Transform,
};

pub use bounded::Bounds;
pub use file_sink::FileSink;
pub use meter::{Meter, StageClock};
pub use plan::{Described, FileTarget, Plan};
pub use replay::{ReplayOptions, Spool};
pub use stream_sink::{
    CHUNKS_AHEAD, Chunk, StreamOptions, StreamSchema, StreamSink, stream_stages,
};

pub use crate::format::rows::RowOptions;
/// The sources by name: part of what a [`Plan`] is made from.
pub use crate::source::{Catalog, Turn};

use bounded::{Bounded, PastBudget};
use stages::{ReadEnd, RenderItem, WriteItem};

/// A batch is closed early when it holds this much: with wide rows, `batch_rows` alone would not bound memory.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The sizes that hold for every pipeline of this process, changed by `SetLimits` while exports run.
#[derive(Debug)]
pub struct Sizes {
    pub bounds: Arc<Bounds>,
    pub batch_rows: Arc<AtomicU32>,
    /// Of exports that start from now on.
    pub transform_workers: AtomicU32,
}

impl Sizes {
    pub fn new(limits: &Limits) -> Self {
        let sizes = Self {
            bounds: Arc::new(Bounds::new(0, 0, 0)),
            batch_rows: Arc::default(),
            transform_workers: AtomicU32::new(0),
        };
        sizes.apply(limits);
        sizes
    }

    pub fn apply(&self, limits: &Limits) {
        self.bounds
            .queue_bytes
            .store(limits.queue_bytes, Ordering::Relaxed);
        self.bounds
            .queue_batches
            .store(u64::from(limits.queue_batches), Ordering::Relaxed);
        self.bounds.set_budget_bytes(limits.memory_budget_bytes);
        self.batch_rows.store(limits.batch_rows, Ordering::Relaxed);
        self.transform_workers
            .store(limits.transform_workers, Ordering::Relaxed);
    }
}

/// What runs behind the source, made when its schema is known.
pub struct Stages {
    pub transform: Transform,
    pub render: Arc<dyn Render>,
    pub sink: Box<dyn Sink>,
}

pub type Prepare = Box<dyn FnOnce(&SchemaRef) -> Result<Stages, Failure> + Send>;

/// The end of a pipeline. Called on one blocking thread, in order; its waiting is back-pressure on everything before.
pub trait Sink: Send {
    /// Also called for a result without rows. Whatever the sink waits for later, `ends` ends the waiting.
    fn start(&mut self, ends: Ends) -> Result<(), Failure>;

    fn push(&mut self, rendered: Rendered) -> Result<(), Failure>;

    /// Makes what was written complete. Not called after a failure: dropping the sink must then leave nothing visible.
    fn finish(self: Box<Self>) -> Result<Written, Failure>;
}

/// What ends a run before its last row.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Fires on the first failure of any stage and on cancel: nothing is wanted any more.
    pub stop: CancellationToken,
    /// Told when the source has failed. The rows before are still on their way, and behind them the failure, which ends
    /// the run where it arrives.
    source_failed: watch::Receiver<Option<Failure>>,
}

impl Ends {
    /// Of something that has no source.
    pub fn by(stop: CancellationToken) -> Self {
        Self {
            stop,
            source_failed: watch::channel(None).1,
        }
    }

    /// Completes when the source has failed, and then `patience` has passed: a sink whose client takes nothing need not
    /// wait longer for what can't succeed.
    pub async fn source_failed_for(&self, patience: Duration) -> Failure {
        let mut told = self.source_failed.clone();
        let failure = match told.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone(),
            Err(_) => None,
        };
        match failure {
            Some(failure) => {
                tokio::time::sleep(patience).await;
                failure
            }
            // It came to its end.
            None => std::future::pending().await,
        }
    }
}

/// What a sink made.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Written {
    pub size_bytes: u64,
    pub sha256: String,
    /// Where it is in the result storage; empty for streams.
    pub path: String,
    pub sheets: u32,
    pub fidelity: Vec<ColumnFidelity>,
}

/// One export's way through the stages.
pub struct Pipeline {
    /// In thread names and logs.
    pub name: String,
    pub plan: Plan,
    pub prepare: Prepare,
    pub sizes: Arc<Sizes>,
    pub meter: Arc<Meter>,
    /// Stops everything; the query is killed at the source within a second.
    pub cancel: CancellationToken,
}

/// What a complete run came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Completed {
    pub rows_read: u64,
    pub rows_filtered: u64,
    pub rows_written: u64,
    /// Of the transform's output: what the result holds.
    pub schema: SchemaRef,
    pub fields: Vec<Field>,
    pub written: Written,
    pub read: ReadSummary,
    pub read_started_at: Timestamp,
    pub read_ended_at: Timestamp,
}

impl Pipeline {
    /// Runs to the end. Returns only when the source's query is gone, so that a slot that is given back is free.
    ///
    /// # Errors
    /// The first failure of any stage; CANCELLED when the token fired first.
    pub async fn run(self) -> Result<Completed, Failure> {
        let run = Run::new(&self.sizes, self.meter.clone());
        let workers = self.sizes.transform_workers.load(Ordering::Relaxed).max(1);
        let read_options = ReadOptions {
            batch_rows: self.sizes.batch_rows.clone(),
            batch_bytes_max: BATCH_BYTES_MAX,
            statement_timeout: self.plan.statement_timeout(),
            rows_max: None,
            cancel: run.stop.clone(),
        };
        let (out, ready) = stages::reader_out(self.prepare, run.clone());
        let (source, query) = (
            self.plan.resolved().source.clone(),
            self.plan.resolved().query.clone(),
        );
        let reader_run = run.clone();
        let reader = task::spawn_thread(format!("read {}", self.name), move || {
            stages::read(source.as_ref(), &query, &read_options, out, &reader_run)
        })
        .map_err(|error| stages::no_thread(&error))?;

        // Closes the queues when the token fires, so that no thread sleeps on.
        let stopper = task::spawn("pipeline.stop", {
            let run = run.clone();
            let cancel = self.cancel.clone();
            async move {
                tokio::select! {
                    () = cancel.cancelled() => run.fail(cancelled()),
                    () = run.stop.cancelled() => {}
                }
            }
        });

        let mut rest = Vec::new();
        // An error here means that the reader ended before a schema: its failure is in `run`.
        let schema = match ready.await {
            Ok(stages) => {
                let schema = stages.transform.output_schema().clone();
                rest = stages::spawn_behind(&self.name, stages, workers, &run);
                Some(schema)
            }
            Err(_) => None,
        };
        let read_end = join(reader, &run).await;
        let mut written = None;
        for thread in rest {
            if let Some(Some(value)) = join(thread, &run).await {
                written = Some(value);
            }
        }
        stopper.abort();
        run.complete(schema, read_end.flatten(), written)
    }
}

pub(crate) fn cancelled() -> Failure {
    Failure::new(
        crate::export::Code::Cancelled,
        "CANCELLED",
        "the export was cancelled",
    )
}

async fn join<T>(thread: tokio::sync::oneshot::Receiver<task::Joined<T>>, run: &Run) -> Option<T> {
    match thread.await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(panicked)) => {
            run.fail(Failure::internal(panicked));
            None
        }
        Err(_) => {
            run.fail(Failure::internal("a pipeline thread ended without a word"));
            None
        }
    }
}

/// What the threads of one run share.
#[derive(Clone)]
struct Run {
    to_render: Arc<Bounded<RenderItem>>,
    to_write: Arc<Bounded<WriteItem>>,
    meter: Arc<Meter>,
    /// Fires on the first failure and on cancel.
    stop: CancellationToken,
    source_failed: Arc<watch::Sender<Option<Failure>>>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Run {
    fn new(sizes: &Sizes, meter: Arc<Meter>) -> Self {
        let bounds = || sizes.bounds.clone();
        let run = Self {
            to_render: Arc::new(Bounded::new(bounds(), PastBudget::Alone)),
            to_write: Arc::new(Bounded::new(bounds(), PastBudget::Next)),
            meter,
            stop: CancellationToken::new(),
            source_failed: Arc::new(watch::Sender::new(None)),
            failure: Arc::default(),
        };
        let (before, behind) = (run.to_render.clone(), run.to_write.clone());
        run.meter
            .probe_levels(move || (before.level(), behind.level()));
        run
    }

    fn ends(&self) -> Ends {
        Ends {
            stop: self.stop.clone(),
            source_failed: self.source_failed.subscribe(),
        }
    }

    /// Keeps the first failure, and stops every stage.
    fn fail(&self, failure: Failure) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
        self.stop.cancel();
        self.to_render.close();
        self.to_write.close();
    }

    fn complete(
        &self,
        schema: Option<SchemaRef>,
        read: Option<ReadEnd>,
        written: Option<Written>,
    ) -> Result<Completed, Failure> {
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let (Some(schema), Some(read), Some(written)) = (schema, read, written) else {
            return Err(Failure::internal(
                "a stage ended without a result and without a failure",
            ));
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let completed = Completed {
            rows_read: count(&self.meter.rows_read),
            rows_filtered: count(&self.meter.rows_filtered),
            rows_written: count(&self.meter.rows_written),
            fields: format::text::fields(&schema),
            schema,
            written,
            read: read.summary,
            read_started_at: read.started_at,
            read_ended_at: read.ended_at,
        };
        // What came in went out: anything else is a lost row, and a lost row must never look like success.
        if completed.rows_read != completed.rows_filtered + completed.rows_written {
            return Err(Failure::internal(format!(
                "{} rows read, {} filtered, but {} written",
                completed.rows_read, completed.rows_filtered, completed.rows_written
            )));
        }
        Ok(completed)
    }
}
