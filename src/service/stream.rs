//! `StreamRows`: rows as they are read (live), or as they were spooled (by id).
//!
//! Both ends look alike to a client: a header, batches with heartbeats between them, and one of three ends: a footer, a
//! drain and UNAVAILABLE, or an error. A live stream is an export like any other: it has a row in the job store, takes a
//! stream slot, counts in the caps, and can be cancelled.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep},
};

use crate::{
    export::{
        Admission, ExportId, ExportSpec, Failure, Field, Guarantee, Progress, RowEncoding, TenantId,
    },
    pipeline::{CHUNKS_AHEAD, Chunk, Meter, RowOptions, StreamSchema},
    run::{Stop, StopReason},
};

use super::{
    Service,
    deadline::{Deadline, deadline_exceeded},
    draining,
    tokens::{ResumePoint, Tokens},
};

/// The header goes out after this even when no row came.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct StreamRequest {
    pub target: StreamTarget,
    pub encoding: RowEncoding,
    /// `None`: the server's choice.
    pub batch_rows_max: Option<u32>,
    pub batch_bytes_max: Option<u32>,
    pub heartbeat: Duration,
    /// Of the call: it holds for the whole stream.
    pub deadline: Option<Deadline>,
}

#[derive(Clone, Debug)]
pub enum StreamTarget {
    /// A live stream: no guarantee, no tokens.
    Spec(Box<ExportSpec>),
    Export {
        id: ExportId,
        guarantee: Guarantee,
        from: Option<ResumePoint>,
    },
}

#[derive(Clone, Debug)]
pub struct Header {
    pub export_id: ExportId,
    pub fields: Vec<Field>,
    pub arrow_schema: Bytes,
    pub guarantee: Guarantee,
    pub first_row: u64,
    pub expires_at: Option<Timestamp>,
    pub admission: Option<Admission>,
}

impl Header {
    fn with(self, schema: StreamSchema) -> Self {
        Self {
            fields: schema.fields,
            arrow_schema: schema.arrow_schema,
            ..self
        }
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Header(Box<Header>),
    Batch(Chunk),
    Heartbeat(Progress),
    /// Reconnect with the token; UNAVAILABLE follows.
    Drain(String),
    /// `rows` counts from row 0 of the result; `sha256` is over this call's payload bytes.
    Footer {
        rows: u64,
        sha256: String,
        progress: Progress,
    },
}

/// An event, and the token to continue behind it where the stream can be resumed.
#[derive(Clone, Debug)]
pub struct Sent {
    pub event: Event,
    pub resume_token: String,
}

/// A row stream that has begun: polled by the transport, dropped when the client is gone.
pub struct RowStream {
    /// Its columns are those of `known`.
    pub(super) header: Header,
    pub(super) known: Known,
    pub(super) feed: Feed,
}

/// Whether the columns were known when the call was answered.
pub(super) enum Known {
    Now(StreamSchema),
    Later(oneshot::Receiver<StreamSchema>),
}

/// What produces a stream's rows, and hears when nobody wants them any more.
pub(super) struct Feed {
    pub chunks: mpsc::Receiver<Chunk>,
    /// Comes when the last chunk was taken.
    pub end: oneshot::Receiver<Result<Ended, Failure>>,
    pub meter: Arc<Meter>,
    pub stop: Stop,
    pub heartbeat: Duration,
    pub tokens: Option<(Tokens, ResumePoint)>,
    /// What the first wait has brought already.
    pub first: Option<Chunk>,
}

#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub rows: u64,
    pub sha256: String,
}

impl Drop for Feed {
    fn drop(&mut self) {
        // After the end nobody listens to this.
        self.stop.now(StopReason::ClientGone);
    }
}

impl Service {
    /// # Errors
    /// Everything that is known before the first row: the call then fails plainly, and can be sent again.
    pub async fn stream(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: StreamRequest,
    ) -> Result<RowStream, Failure> {
        let _permit = self.enter()?;
        match request.target.clone() {
            StreamTarget::Spec(spec) => self.stream_live(tenant, *spec, request).await,
            StreamTarget::Export {
                id,
                guarantee,
                from,
            } => {
                self.stream_spooled(tenant, id, guarantee, from, request)
                    .await
            }
        }
    }
}

/// How long the first fetch is awaited before the header goes out.
pub(super) fn first_fetch_patience(heartbeat: Duration) -> Duration {
    heartbeat.min(FIRST_FETCH_MAX)
}

pub(super) fn row_options(request: &StreamRequest) -> RowOptions {
    RowOptions {
        encoding: request.encoding,
        max_batch_rows: request.batch_rows_max,
        max_batch_bytes: request.batch_bytes_max,
    }
}

pub(super) fn chunk_channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(CHUNKS_AHEAD)
}

impl Feed {
    /// Waits for the schema, then for the first chunk, an early end, or the patience's end. A source that does not know
    /// its columns by then gives its receiver back: heartbeats go out until the header can.
    pub(super) async fn begin(
        &mut self,
        mut known: oneshot::Receiver<StreamSchema>,
        deadline: Option<Deadline>,
    ) -> Result<Known, Failure> {
        let patience = Instant::now() + first_fetch_patience(self.heartbeat);
        let deadline = deadline.map(|deadline| deadline.wait_until());
        let deadline = deadline.filter(|at| *at <= patience);
        let patience = deadline.unwrap_or(patience);
        let schema = match tokio::time::timeout_at(patience, &mut known).await {
            Err(_) if deadline.is_some() => return Err(self.give_up()),
            Err(_) => return Ok(Known::Later(known)),
            Ok(Ok(schema)) => schema,
            // No schema: the run ended before it, and says why.
            Ok(Err(_)) => return Err(self.failure().await),
        };
        tokio::select! {
            () = tokio::time::sleep_until(patience) => {
                if deadline.is_some() {
                    return Err(self.give_up());
                }
            }
            first = self.chunks.recv() => match first {
                Some(chunk) => self.first = Some(chunk),
                // Ended without rows: an error is still a plain one.
                None => {
                    let end = (&mut self.end).await;
                    match end {
                        Ok(Ok(ended)) => {
                            let (sender, receiver) = oneshot::channel();
                            let _ = sender.send(Ok(ended));
                            self.end = receiver;
                        }
                        Ok(Err(failure)) => return Err(failure),
                        Err(_) => return Err(lost_end()),
                    }
                }
            },
        }
        Ok(Known::Now(schema))
    }

    fn give_up(&self) -> Failure {
        self.stop.now(StopReason::Deadline);
        deadline_exceeded()
    }

    async fn failure(&mut self) -> Failure {
        match (&mut self.end).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(_)) | Err(_) => lost_end(),
        }
    }

    fn token_behind(&mut self, rows: u64) -> String {
        match &mut self.tokens {
            None => String::new(),
            Some((tokens, point)) => {
                point.row += rows;
                tokens.resume(point)
            }
        }
    }
}

fn lost_end() -> Failure {
    Failure::internal("a row stream ended without a word")
}

/// Where the unfolding stands.
enum Phase {
    /// The source has not told its columns yet.
    Unknown(Box<Header>, oneshot::Receiver<StreamSchema>),
    Header(Box<Header>),
    Rows,
    Drained,
    Over,
}

impl RowStream {
    /// The events in order. After an error, or a footer, nothing comes.
    ///
    /// `draining`: when it completes, a resumable stream ends with a drain.
    pub fn events(
        self,
        draining: tokio_util::sync::CancellationToken,
    ) -> impl Stream<Item = Result<Sent, Failure>> + Send {
        let phase = match self.known {
            Known::Now(schema) => Phase::Header(Box::new(self.header.with(schema))),
            Known::Later(known) => Phase::Unknown(Box::new(self.header), known),
        };
        let beat = Box::pin(tokio::time::sleep(self.feed.heartbeat));
        stream::unfold(
            (self.feed, phase, beat, draining),
            async move |(mut feed, phase, mut beat, draining)| {
                let (item, phase) = match phase {
                    Phase::Over => return None,
                    Phase::Drained => (Err(drained()), Phase::Over),
                    Phase::Header(header) => {
                        let token = feed.token_behind(0);
                        (sent(Event::Header(header), token), Phase::Rows)
                    }
                    Phase::Unknown(header, known) => feed.learn(header, known, &mut beat).await,
                    Phase::Rows => feed.next(&mut beat, &draining).await,
                };
                beat.as_mut().reset(Instant::now() + feed.heartbeat);
                Some((item, (feed, phase, beat, draining)))
            },
        )
    }
}

type Step = (Result<Sent, Failure>, Phase);

fn sent(event: Event, resume_token: String) -> Result<Sent, Failure> {
    Ok(Sent {
        event,
        resume_token,
    })
}

fn drained() -> Failure {
    draining("the server is shutting down; reconnect with the last resume token")
}

impl Feed {
    async fn next(
        &mut self,
        beat: &mut std::pin::Pin<Box<Sleep>>,
        draining: &tokio_util::sync::CancellationToken,
    ) -> Step {
        if let Some(first) = self.first.take() {
            return self.batch(first);
        }
        let is_resumable = self.tokens.is_some();
        tokio::select! {
            biased;
            () = draining.cancelled(), if is_resumable => {
                let token = self.token_behind(0);
                (sent(Event::Drain("the server is shutting down".to_owned()), token), Phase::Drained)
            }
            chunk = self.chunks.recv() => match chunk {
                Some(chunk) => self.batch(chunk),
                None => self.ended().await,
            },
            () = beat.as_mut() => {
                let token = self.token_behind(0);
                (sent(Event::Heartbeat(self.meter.progress()), token), Phase::Rows)
            }
        }
    }

    async fn learn(
        &mut self,
        header: Box<Header>,
        mut known: oneshot::Receiver<StreamSchema>,
        beat: &mut std::pin::Pin<Box<Sleep>>,
    ) -> Step {
        tokio::select! {
            schema = &mut known => match schema {
                Ok(schema) => (
                    sent(Event::Header(Box::new(header.with(schema))), String::new()),
                    Phase::Rows,
                ),
                Err(_) => (Err(self.failure().await), Phase::Over),
            },
            () = beat.as_mut() => (
                sent(Event::Heartbeat(self.meter.progress()), String::new()),
                Phase::Unknown(header, known),
            ),
        }
    }

    fn batch(&mut self, chunk: Chunk) -> Step {
        let token = self.token_behind(u64::from(chunk.rows));
        (sent(Event::Batch(chunk), token), Phase::Rows)
    }

    async fn ended(&mut self) -> Step {
        let item = match (&mut self.end).await {
            Ok(Ok(ended)) => {
                let token = self.token_behind(0);
                sent(
                    Event::Footer {
                        rows: ended.rows,
                        sha256: ended.sha256,
                        progress: self.meter.progress(),
                    },
                    token,
                )
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(lost_end()),
        };
        (item, Phase::Over)
    }
}
