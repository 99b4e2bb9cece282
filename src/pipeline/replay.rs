//! Spooled rows on their way to a client: segments read from the storage, checked, rendered, sent, from any row on.
//!
//! Reading is one step ahead of rendering, where the memory budget allows it; both wait for the client. Rendering depends only on the segment and the
//! options, never on where a stream began: that makes a resumed stream equal to an uninterrupted one, byte for byte.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use jiff::tz::TimeZone;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    export::{Failure, ResultInfo},
    format::{
        self,
        rows::{RowOptions, RowRender},
        spool::{FOOTER_BYTES, Footer, SpoolIndex},
    },
    storage::{self, ResultStore},
    task,
};

use super::{
    Bounds, Chunk, Ends, Meter, StreamSchema, StreamSink,
    bounded::{Account, Share},
    cancelled,
    stages::no_thread,
};

/// Segments that are read ahead of the one that is rendered.
const SEGMENTS_AHEAD: usize = 1;

/// A complete spool, ready to be read from any row.
pub struct Spool {
    results: ResultStore,
    path: String,
    index: SpoolIndex,
}

pub struct ReplayOptions {
    pub rows: RowOptions,
    pub time_zone: TimeZone,
    /// Up to the number of rows, which gives none.
    pub first_row: u64,
    pub idle_timeout: Duration,
    /// What is read and rendered takes of the same budget as exports.
    pub bounds: Arc<Bounds>,
    pub cancel: CancellationToken,
}

impl Spool {
    /// Reads the index.
    ///
    /// # Errors
    /// DATA_LOSS when what is stored is not what was written.
    pub async fn open(results: ResultStore, result: &ResultInfo) -> Result<Self, Failure> {
        let size_bytes = result.size_bytes;
        let footer_at = size_bytes.saturating_sub(FOOTER_BYTES as u64);
        let bytes = read(&results, &result.path, footer_at..size_bytes).await?;
        let footer = Footer::parse(size_bytes, &bytes).map_err(format::Error::into_failure)?;
        let tail = read(&results, &result.path, footer.tail()).await?;
        let index = SpoolIndex::parse(&footer, &tail).map_err(format::Error::into_failure)?;
        Ok(Self {
            results,
            path: result.path.clone(),
            index,
        })
    }

    pub fn rows(&self) -> u64 {
        self.index.rows()
    }

    pub fn schema(&self) -> Result<StreamSchema, Failure> {
        StreamSchema::new(self.index.schema())
    }

    /// Sends the rows from `first_row` on; returns the SHA-256 of the payloads once the client has taken all of them.
    pub async fn replay(
        self,
        options: ReplayOptions,
        meter: Arc<Meter>,
        chunks: mpsc::Sender<Chunk>,
    ) -> Result<String, Failure> {
        let render = RowRender::new(options.rows, self.index.schema(), &options.time_zone)
            .map_err(format::Error::into_failure)?;
        let sink = StreamSink::new(
            chunks,
            options.first_row,
            options.idle_timeout,
            meter.clone(),
            Ends::by(options.cancel.clone()),
        );
        let (segments, received) = mpsc::channel(SEGMENTS_AHEAD);
        let spool = Arc::new(self);
        let runtime = Handle::current();
        let (sent, first_row) = (spool.clone(), options.first_row);
        let sender_meter = meter.clone();
        let sending = task::spawn_thread("replay".to_owned(), move || {
            let sender = Sender {
                spool: sent,
                render,
                sink,
                meter: sender_meter,
            };
            sender.send_all(received, first_row, &runtime)
        })
        .map_err(|error| no_thread(&error))?;
        let budget = Account::new(options.bounds);
        let reading = spool.read_segments(first_row, &segments, &budget, &meter);
        let read = tokio::select! {
            read = reading => read,
            () = options.cancel.cancelled() => Err(cancelled()),
        };
        drop(segments);
        let sent = match sending.await {
            Ok(Ok(sent)) => sent,
            Ok(Err(panicked)) => Err(Failure::internal(panicked)),
            Err(_) => Err(Failure::internal("the replay ended without a word")),
        };
        read.and(sent)
    }

    async fn read_segments(
        &self,
        first_row: u64,
        segments: &mpsc::Sender<ReadSegment>,
        budget: &Account,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let Some(first) = self.index.segment_for_row(first_row) else {
            return Ok(());
        };
        for (number, segment) in self.index.segments().iter().enumerate().skip(first) {
            let range = segment.bytes.clone();
            let waited = Instant::now();
            let share = budget.share(range.end - range.start).await;
            meter.source.blocked(waited.elapsed());
            let started = Instant::now();
            let bytes = read(&self.results, &self.path, range).await?;
            let done = Instant::now();
            meter.source.busy(done - started);
            let read = ReadSegment {
                number,
                bytes,
                share,
            };
            if segments.send(read).await.is_err() {
                // The sender stopped first, and says why.
                return Ok(());
            }
            meter.source.blocked(done.elapsed());
        }
        Ok(())
    }
}

async fn read(
    results: &ResultStore,
    path: &str,
    range: std::ops::Range<u64>,
) -> Result<Bytes, Failure> {
    results
        .read_range(path, range)
        .await
        .map_err(storage::Error::into_failure)
}

/// A segment as it is stored, with its share of the memory budget.
struct ReadSegment {
    number: usize,
    bytes: Bytes,
    share: Share,
}

struct Sender {
    spool: Arc<Spool>,
    render: RowRender,
    sink: StreamSink,
    meter: Arc<Meter>,
}

impl Sender {
    /// On a thread of its own.
    fn send_all(
        mut self,
        mut segments: mpsc::Receiver<ReadSegment>,
        first_row: u64,
        runtime: &Handle,
    ) -> Result<String, Failure> {
        while let Some(read) = runtime.block_on(segments.recv()) {
            let mut share = read.share;
            let started = Instant::now();
            let segment = &self.spool.index.segments()[read.number];
            let stored_bytes = read.bytes.len() as u64;
            let batch = self
                .spool
                .index
                .decode_segment(read.number, read.bytes)
                .map_err(format::Error::into_failure)?;
            share.resize(stored_bytes + values_bytes(&batch));
            let rows = batch.num_rows() as u64;
            let skipped = first_row.saturating_sub(segment.first_row);
            let chunks = self
                .render
                .chunks_from(batch, skipped as usize)
                .map_err(|error| error.after_rows(segment.first_row).into_failure())?;
            let rendered = chunks.iter().map(|chunk| chunk.payload.len() as u64);
            share.resize(rendered.sum());
            self.meter.count_read(rows - skipped);
            self.meter.transform.busy(started.elapsed());
            for chunk in chunks {
                let rows = u64::from(chunk.rows);
                self.sink.send(chunk)?;
                self.meter.rows_written.fetch_add(rows, Ordering::Relaxed);
            }
        }
        self.sink.drain()
    }
}

/// What the values take. The arrays of a decoded segment share its buffers: each would count all of them.
fn values_bytes(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    let bytes = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64);
    bytes.sum()
}
