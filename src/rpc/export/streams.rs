//! The server-streaming answers of `ExportService`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, PollNext},
};
use tonic::Status;

use super::{Responses, view_to_proto};
use crate::{
    export::{ExportId, Failure, Guarantee, RowEncoding, TenantId},
    pipeline::Chunk,
    rpc::{convert, pb, status::from_failure},
    service::{
        Changes, Deadline, Download, Event, ExportView, Header, Sent, Service, deadline_exceeded,
        draining,
    },
};

/// Ends a stream with DEADLINE_EXCEEDED when the call's `grpc-timeout` is over: tonic applies it to the handler only.
/// Row streams have their own, which stops their query as well.
pub(super) fn until<T: Send + 'static>(
    deadline: Option<Deadline>,
    responses: Responses<T>,
) -> Responses<T> {
    let Some(deadline) = deadline else {
        return responses;
    };
    let over = futures::stream::once(async move {
        tokio::time::sleep_until(deadline.at).await;
        Err(from_failure(deadline_exceeded()))
    });
    // The stream's own end ends both: `None` behind its last item.
    let responses = responses.map(Some).chain(stream::iter([None]));
    let both =
        stream::select_with_strategy(responses, over.map(Some), |(): &mut ()| PollNext::Left);
    let both = both.scan(Next::Open, |next, item: Option<Result<T, Status>>| {
        let item = match next {
            Next::Open => item,
            Next::Over => None,
        };
        if item.as_ref().is_some_and(Result::is_err) {
            *next = Next::Over;
        }
        futures::future::ready(item)
    });
    Box::pin(both)
}

enum Next {
    Open,
    Over,
}

pub(super) fn rows(
    events: impl Stream<Item = Result<Sent, Failure>> + Send + 'static,
    encoding: RowEncoding,
) -> Responses<pb::StreamRowsResponse> {
    Box::pin(events.map(move |sent| {
        sent.and_then(|sent| {
            Ok(pb::StreamRowsResponse {
                event: Some(event_to_proto(sent.event, encoding)?),
                resume_token: sent.resume_token,
            })
        })
        .map_err(from_failure)
    }))
}

fn event_to_proto(
    event: Event,
    encoding: RowEncoding,
) -> Result<pb::stream_rows_response::Event, Failure> {
    use pb::stream_rows_response::Event as Proto;
    Ok(match event {
        Event::Header(header) => Proto::Header(header_to_proto(*header)),
        Event::Batch(chunk) => Proto::Batch(batch_to_proto(chunk, encoding)?),
        Event::Heartbeat(progress) => Proto::Heartbeat(pb::Heartbeat {
            progress: Some(convert::progress_to_proto(&progress)),
        }),
        Event::Drain(reason) => Proto::Drain(pb::Drain { reason }),
        Event::Footer {
            rows,
            sha256,
            progress,
        } => Proto::Footer(pb::StreamFooter {
            rows: convert::int64(rows),
            // VALUES has no bytes that a client could hash: it sees decoded messages.
            sha256: match encoding {
                RowEncoding::Values => String::new(),
                RowEncoding::ArrowIpc | RowEncoding::JsonLines => sha256,
            },
            progress: Some(convert::progress_to_proto(&progress)),
        }),
    })
}

fn header_to_proto(header: Header) -> pb::StreamHeader {
    pb::StreamHeader {
        schema: convert::fields_to_proto(&header.fields),
        arrow_schema: header.arrow_schema,
        guarantee: match header.guarantee {
            Guarantee::None => pb::Resume::None,
            Guarantee::Spooled => pb::Resume::Spooled,
        }
        .into(),
        first_row: convert::int64(header.first_row),
        expire_time: header.expires_at.map(convert::timestamp_to_proto),
        admission: header.admission.as_ref().map(convert::admission_to_proto),
        export_id: header.export_id.to_string(),
    }
}

fn batch_to_proto(chunk: Chunk, encoding: RowEncoding) -> Result<pb::RowBatch, Failure> {
    use pb::row_batch::Rows;
    let (rows, crc32c) = match encoding {
        RowEncoding::Values => (Rows::Values(pb::EncodedRows::from(chunk.payload)), None),
        RowEncoding::ArrowIpc => (Rows::ArrowIpc(chunk.payload), Some(chunk.crc32c)),
        RowEncoding::JsonLines => (
            Rows::JsonLines(
                String::from_utf8(Vec::from(chunk.payload))
                    .map_err(|error| Failure::internal(format!("JSON lines: {error}")))?,
            ),
            Some(chunk.crc32c),
        ),
    };
    Ok(pb::RowBatch {
        first_row: convert::int64(chunk.first_row),
        row_count: i32::try_from(chunk.rows)
            .map_err(|_| Failure::internal("a batch of more than 2^31 rows"))?,
        crc32c,
        rows: Some(rows),
    })
}

/// One call of `WatchExport`. Its changes count from before its first look, so that none is missed.
pub(super) struct Watched {
    pub changes: Changes,
    pub service: Arc<Service>,
    pub tenant: TenantId,
    pub id: ExportId,
    pub interval: Duration,
}

impl Watched {
    pub(super) async fn look(&self) -> Result<ExportView, Failure> {
        let at_once = Duration::ZERO;
        self.service
            .status(&self.tenant, self.id, at_once, None)
            .await
    }

    /// After a change, or the interval.
    async fn look_again(&mut self) -> Result<ExportView, Failure> {
        tokio::select! {
            () = tokio::time::sleep(self.interval) => {}
            () = self.changes.next() => {}
            () = self.service.draining.cancelled() => {
                return Err(draining("the server is shutting down; watch again"));
            }
        }
        self.look().await
    }
}

/// The export now, at every change, at least every interval, and last at its end.
pub(super) fn watch(watched: Watched, first: ExportView) -> Responses<pb::WatchExportResponse> {
    enum Next {
        Show(Box<ExportView>),
        Wait,
        Over,
    }
    let start = (watched, Next::Show(Box::new(first)));
    let watch = stream::unfold(start, async move |(mut watched, next)| {
        let view = match next {
            Next::Over => return None,
            Next::Show(view) => *view,
            Next::Wait => match watched.look_again().await {
                Ok(view) => view,
                Err(failure) => return Some((Err(from_failure(failure)), (watched, Next::Over))),
            },
        };
        let next = match view.job.state.is_terminal() {
            true => Next::Over,
            false => Next::Wait,
        };
        let response = pb::WatchExportResponse {
            export: Some(view_to_proto(&view)),
        };
        Some((Ok(response), (watched, next)))
    });
    Box::pin(watch)
}

pub(super) fn download(download: Download) -> Responses<pb::DownloadResultResponse> {
    let first = pb::DownloadResultResponse {
        data: Bytes::new(),
        offset: convert::int64(download.offset),
        crc32c: None,
        result: Some(convert::result_to_proto(&download.result)),
    };
    let rest = download.pieces.scan(download.offset, |offset, piece| {
        let response = piece.map(|data| {
            let at = *offset;
            *offset += data.len() as u64;
            pb::DownloadResultResponse {
                crc32c: Some(crc32c::crc32c(&data)),
                offset: convert::int64(at),
                data,
                result: None,
            }
        });
        futures::future::ready(Some(response.map_err(from_failure)))
    });
    Box::pin(stream::iter([Ok(first)]).chain(rest))
}
