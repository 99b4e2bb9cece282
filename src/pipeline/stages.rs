//! The three stages as they run on their threads.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::{
    export::Failure,
    format::{self, Rendered},
    source::{self, BatchOut, Query, ReadOptions, ReadSummary, Source},
    task,
    transform::Transform,
};

use super::{Prepare, Run, Sink, Stages, Written};

/// A batch as it was read; or, as the last item, why the source gave no more: a failure travels behind the rows before
/// it, so that an earlier row that is wrong is reported first, however fast the source failed.
pub(super) type RenderItem = Result<RecordBatch, Failure>;

/// A rendered batch, or why there is none: errors travel in order, so that the first wrong row is the one that is
/// reported, and the rows before it are counted.
pub(super) type WriteItem = Result<Rendered, format::Error>;

pub(super) struct ReadEnd {
    pub summary: ReadSummary,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

/// Where the source puts its batches. Time between two puts is the source's; time within one is back-pressure.
pub(super) struct ReaderOut {
    prepare: Option<(Prepare, oneshot::Sender<Stages>)>,
    run: Run,
    sequence: u64,
    since: Instant,
}

/// Also returns the receiver of the stages, which hears when the schema is known.
pub(super) fn reader_out(prepare: Prepare, run: Run) -> (ReaderOut, oneshot::Receiver<Stages>) {
    let (sender, receiver) = oneshot::channel();
    let out = ReaderOut {
        prepare: Some((prepare, sender)),
        run,
        sequence: 0,
        since: Instant::now(),
    };
    (out, receiver)
}

impl BatchOut for ReaderOut {
    fn schema(&mut self, schema: SchemaRef) -> Result<(), source::Closed> {
        let Some((prepare, ready)) = self.prepare.take() else {
            self.run
                .fail(Failure::internal("the source gave its schema twice"));
            return Err(source::Closed);
        };
        match prepare(&schema) {
            Ok(stages) => ready.send(stages).map_err(|_| source::Closed),
            Err(failure) => {
                self.run.fail(failure);
                Err(source::Closed)
            }
        }
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), source::Closed> {
        let arrived = Instant::now();
        self.run.meter.source.busy(arrived - self.since);
        if batch.num_rows() == 0 {
            self.since = arrived;
            return Ok(());
        }
        let bytes = batch.get_array_memory_size() as u64;
        self.run.meter.count_read(batch.num_rows() as u64);
        let pushed = self.run.to_render.push(self.sequence, Ok(batch), bytes);
        self.sequence += 1;
        self.since = Instant::now();
        self.run.meter.source.blocked(self.since - arrived);
        self.run.meter.source.begins();
        pushed.map_err(|_| source::Closed)
    }
}

impl ReaderOut {
    /// Takes the failure to the end of the queue.
    fn fails(&self, failure: Failure) {
        self.run.meter.source.busy(self.since.elapsed());
        self.run.source_failed.send_replace(Some(failure.clone()));
        // Closed: something else had failed before.
        let _ = self.run.to_render.push(self.sequence, Err(failure), 0);
        self.run.to_render.finish();
    }
}

/// The reader's thread.
pub(super) fn read(
    source: &dyn Source,
    query: &Query,
    options: &ReadOptions,
    mut out: ReaderOut,
    run: &Run,
) -> Option<ReadEnd> {
    let started_at = Timestamp::now();
    out.since = Instant::now();
    run.meter.source.begins();
    match source::read_on_this_thread(source, query, options, &mut out) {
        Ok(_) if out.prepare.is_some() => {
            run.fail(Failure::internal("the source ended without a schema"));
            None
        }
        Ok(summary) => {
            run.meter.source.busy(out.since.elapsed());
            run.to_render.finish();
            Some(ReadEnd {
                summary,
                started_at,
                ended_at: Timestamp::now(),
            })
        }
        // Answers to a stop: the failure that caused it is the one to tell.
        Err(error @ (source::Error::Closed | source::Error::Cancelled)) => {
            run.fail(error.into_failure());
            None
        }
        // There are no rows, and nobody behind who could take the failure.
        Err(error) if out.prepare.is_some() => {
            run.fail(error.into_failure());
            None
        }
        Err(error) => {
            out.fails(error.into_failure());
            None
        }
    }
}

type Thread = oneshot::Receiver<task::Joined<Option<Written>>>;

/// Starts the render threads and the writer. When one can't be started the run fails, and those that were end by
/// themselves; they are returned all the same, to be waited for.
pub(super) fn spawn_behind(name: &str, stages: Stages, workers: u32, run: &Run) -> Vec<Thread> {
    run.meter.transform.set_threads(u64::from(workers));
    let Stages {
        transform,
        render,
        sink,
    } = stages;
    let mut threads = Vec::new();
    let left = Arc::new(AtomicU32::new(workers));
    for number in 0..workers {
        let (transform, render, left) = (transform.clone(), render.clone(), left.clone());
        let worker_run = run.clone();
        let started = task::spawn_thread(format!("render {number} {name}"), move || {
            let _unwinding = FailOnPanic(&worker_run);
            render_all(&transform, render.as_ref(), &worker_run);
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                worker_run.to_write.finish();
            }
            None
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                run.fail(no_thread(&error));
                return threads;
            }
        }
    }
    let writer_run = run.clone();
    let started = task::spawn_thread(format!("write {name}"), move || {
        let _unwinding = FailOnPanic(&writer_run);
        match write_all(sink, &writer_run) {
            Ok(written) => written,
            Err(failure) => {
                writer_run.fail(failure);
                None
            }
        }
    });
    match started {
        Ok(thread) => threads.push(thread),
        Err(error) => run.fail(no_thread(&error)),
    }
    threads
}

/// A stage that panics must stop the others: they would wait for it for ever.
struct FailOnPanic<'a>(&'a Run);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail(Failure::internal("a stage of the pipeline panicked"));
        }
    }
}

/// Threads come back when other exports end.
pub(super) fn no_thread(error: &std::io::Error) -> Failure {
    Failure::internal(format!("no thread for a stage: {error}")).retryable()
}

fn render_all(transform: &Transform, render: &dyn format::Render, run: &Run) {
    // An item's share of the budget is held until the output is in the next queue: both are in memory until then.
    while let Some(item) = run.to_render.pop() {
        let started = Instant::now();
        let rendered = match &item.value {
            Ok(batch) => render_one(transform, render, batch.clone(), run),
            Err(failure) => Err(format::Error::Invalid(failure.clone())),
        };
        let bytes = rendered
            .as_ref()
            .map_or(0, |rendered| rendered.payload.size_bytes() as u64);
        let done = Instant::now();
        run.meter.transform.busy(done - started);
        let pushed = run.to_write.push(item.sequence, rendered, bytes);
        run.meter.transform.blocked(done.elapsed());
        if pushed.is_err() {
            return;
        }
    }
}

fn render_one(
    transform: &Transform,
    render: &dyn format::Render,
    batch: RecordBatch,
    run: &Run,
) -> WriteItem {
    let rows = batch.num_rows() as u64;
    let batch = transform
        .apply(batch)
        .map_err(|error| format::Error::Invalid(error.into_failure()))?;
    let filtered = rows - batch.num_rows() as u64;
    run.meter
        .rows_filtered
        .fetch_add(filtered, Ordering::Relaxed);
    render.render(batch)
}

/// `None` when the run was stopped by somebody else.
fn write_all(mut sink: Box<dyn Sink>, run: &Run) -> Result<Option<Written>, Failure> {
    let mut rows_before = 0;
    timed(run, || sink.start(run.ends()))?;
    while let Some(item) = run.to_write.pop() {
        let rendered = item
            .value
            .map_err(|error| error.after_rows(rows_before).into_failure())?;
        let rows = rendered.rows;
        timed(run, || sink.push(rendered))?;
        rows_before += rows;
        run.meter.rows_written.fetch_add(rows, Ordering::Relaxed);
    }
    if run.stop.is_cancelled() {
        return Ok(None);
    }
    timed(run, || sink.finish()).map(Some)
}

fn timed<T>(run: &Run, work: impl FnOnce() -> T) -> T {
    let (started, client_before) = (Instant::now(), run.meter.client.busy_time());
    let value = work();
    let waited_for_client = run.meter.client.busy_time() - client_before;
    run.meter
        .sink
        .busy(started.elapsed().saturating_sub(waited_for_client));
    run.meter.sink.blocked(waited_for_client);
    value
}
