//! The end of a pipeline that is a row stream: messages in order, no faster than their client takes them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use crate::{
    export::{Code, Failure, Field},
    format::{self, Payload, Rendered, RowChunk, rows::RowOptions, rows::RowRender},
};

use super::{Ends, Meter, Plan, Prepare, Sink, Stages, Written, cancelled};

/// Messages that wait between the sink and the client: one that is sent, one that is next. More would only be memory.
pub const CHUNKS_AHEAD: usize = 2;

/// The source has failed: a client that takes nothing for this long does not get the rows before the failure.
const REST_PATIENCE: Duration = Duration::from_secs(5);

/// One message's worth of rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// From 0, within the result.
    pub first_row: u64,
    pub rows: u32,
    pub payload: Bytes,
    pub crc32c: u32,
}

#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub rows: RowOptions,
    /// A client that takes nothing for this long is cut off.
    pub idle_timeout: Duration,
}

/// What a stream's header needs, known with the schema.
#[derive(Clone, Debug)]
pub struct StreamSchema {
    pub fields: Vec<Field>,
    /// The schema message of an Arrow IPC stream.
    pub arrow_schema: Bytes,
}

pub struct StreamSink {
    chunks: mpsc::Sender<Chunk>,
    next_row: u64,
    hash: Sha256,
    idle_timeout: Duration,
    meter: Arc<Meter>,
    /// A client that takes nothing must not keep them from taking effect.
    ends: Ends,
    runtime: Handle,
}

impl StreamSink {
    /// Call it within the service's runtime.
    pub fn new(
        chunks: mpsc::Sender<Chunk>,
        first_row: u64,
        idle_timeout: Duration,
        meter: Arc<Meter>,
        ends: Ends,
    ) -> Self {
        Self {
            chunks,
            next_row: first_row,
            hash: Sha256::new(),
            idle_timeout,
            meter,
            ends,
            runtime: Handle::current(),
        }
    }

    pub fn send(&mut self, chunk: RowChunk) -> Result<(), Failure> {
        self.hash.update(&chunk.payload);
        self.meter
            .bytes_written
            .fetch_add(chunk.payload.len() as u64, Ordering::Relaxed);
        let message = Chunk {
            first_row: self.next_row,
            rows: chunk.rows,
            crc32c: crc32c::crc32c(&chunk.payload),
            payload: chunk.payload,
        };
        self.next_row += u64::from(chunk.rows);
        self.wait_for_client(async { self.chunks.send(message).await.is_ok() })
    }

    /// Waits until the client has taken everything, then tells the SHA-256 of all payloads.
    pub fn drain(self) -> Result<String, Failure> {
        self.wait_for_client(async {
            let all = self.chunks.max_capacity();
            self.chunks.reserve_many(all).await.is_ok()
        })?;
        Ok(hex::encode(self.hash.finalize()))
    }

    /// `wait` says whether the client is still there.
    fn wait_for_client(&self, wait: impl Future<Output = bool>) -> Result<(), Failure> {
        let started = Instant::now();
        self.meter.client.begins();
        let answer = self.runtime.block_on(async {
            tokio::select! {
                is_there = wait => match is_there {
                    true => Ok(()),
                    false => Err(client_gone()),
                },
                () = self.ends.stop.cancelled() => Err(cancelled()),
                () = tokio::time::sleep(self.idle_timeout) => Err(slow_client(self.idle_timeout)),
                failure = self.ends.source_failed_for(REST_PATIENCE) => Err(failure),
            }
        });
        self.meter.client.busy(started.elapsed());
        answer
    }
}

impl Sink for StreamSink {
    fn start(&mut self, ends: Ends) -> Result<(), Failure> {
        self.ends = ends;
        Ok(())
    }

    fn push(&mut self, rendered: Rendered) -> Result<(), Failure> {
        let Payload::Chunks(chunks) = rendered.payload else {
            return Err(Failure::internal("a row stream was given no chunks"));
        };
        chunks.into_iter().try_for_each(|chunk| self.send(chunk))
    }

    fn finish(self: Box<Self>) -> Result<Written, Failure> {
        let size_bytes = self.meter.bytes_written.load(Ordering::Relaxed);
        Ok(Written {
            size_bytes,
            sha256: self.drain()?,
            ..Written::default()
        })
    }
}

/// Stages that feed a row stream; `known` hears the schema before the first chunk. Call it within the service's
/// runtime.
pub fn stream_stages(
    plan: &Plan,
    options: StreamOptions,
    meter: Arc<Meter>,
    chunks: mpsc::Sender<Chunk>,
    known: oneshot::Sender<StreamSchema>,
) -> Prepare {
    let plan = plan.clone();
    // The pipeline's own ends come when it starts the sink.
    let ends = Ends::by(CancellationToken::new());
    let sink = StreamSink::new(chunks, 0, options.idle_timeout, meter, ends);
    Box::new(move |schema| {
        let transform = plan.transform(schema)?;
        let schema = transform.output_schema().clone();
        let render = RowRender::new(options.rows, &schema, plan.time_zone())
            .map_err(format::Error::into_failure)?;
        // A client that is gone already is noticed by the sink.
        let _ = known.send(StreamSchema::new(&schema)?);
        Ok(Stages {
            transform,
            render: Arc::new(render),
            sink: Box::new(sink),
        })
    })
}

impl StreamSchema {
    pub fn new(schema: &SchemaRef) -> Result<Self, Failure> {
        Ok(Self {
            fields: format::text::fields(schema),
            arrow_schema: format::rows::arrow_schema_bytes(schema)
                .map_err(format::Error::into_failure)?,
        })
    }
}

fn slow_client(idle_timeout: Duration) -> Failure {
    Failure::new(
        Code::Aborted,
        "SLOW_CLIENT",
        format!("the client read nothing for {idle_timeout:?}"),
    )
}

fn client_gone() -> Failure {
    Failure::new(
        Code::Cancelled,
        "CLIENT_GONE",
        "the client of the stream went away",
    )
}
