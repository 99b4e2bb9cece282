//! Rows of a finished export: byte-exact from any token, until the result expires.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::oneshot;

use crate::{
    export::{Code, ExportId, Failure, Guarantee, ResultKind, TenantId},
    pipeline::{Meter, ReplayOptions, Spool, StreamSchema},
    run::{Stop, StopReason},
};

use super::{
    Service,
    admission::no_room,
    live::{told_by_stop, until},
    readable,
    stream::{Ended, Feed, Header, RowStream, StreamRequest, chunk_channel, row_options},
    tokens::ResumePoint,
};

impl Service {
    pub(super) async fn stream_spooled(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: ExportId,
        guarantee: Guarantee,
        from: Option<ResumePoint>,
        request: StreamRequest,
    ) -> Result<RowStream, Failure> {
        let job = self.job(tenant, id).await?;
        let result = readable(&job)?;
        if result.kind != ResultKind::Rows {
            return Err(Failure::new(
                Code::FailedPrecondition,
                "NOT_ROWS",
                match result.kind {
                    ResultKind::Live => "the export was a live stream; its rows are not kept",
                    _ => "the export made a file; read it with DownloadResult",
                },
            ));
        }
        if let Some(point) = &from {
            point.check(id, job.fence, request.encoding)?;
        }
        let Some(slot) = self.runner.slots.try_stream() else {
            return Err(no_room("STREAM_LIMIT", "as many streams run here as may")
                .metadata("limit", "stream_slots"));
        };
        let spool = Spool::open(self.runner.results.clone(), result).await?;
        let first_row = from.map_or(0, |point| point.row).min(spool.rows());
        let schema = spool.schema()?;
        let rows = spool.rows();
        let (chunks, received) = chunk_channel();
        let (end_sender, end) = oneshot::channel();
        let meter = Arc::new(Meter::new(Some(rows - first_row)));
        let stop = Stop::default();
        let mut feed = Feed {
            chunks: received,
            end,
            meter: meter.clone(),
            stop: stop.clone(),
            heartbeat: request.heartbeat,
            tokens: (guarantee == Guarantee::Spooled).then(|| {
                let point = ResumePoint {
                    export: id,
                    fence: job.fence,
                    row: first_row,
                    encoding: request.encoding,
                };
                (self.tokens.clone(), point)
            }),
            first: None,
        };
        let options = ReplayOptions {
            rows: row_options(&request),
            time_zone: time_zone(job.spec.time_zone.as_deref())?,
            first_row,
            idle_timeout: self.options.stream_idle_timeout,
            bounds: self.runner.sizes.bounds.clone(),
            cancel: stop.token(),
        };
        let (deadline, cut_off) = (request.deadline, self.cut_off.clone());
        crate::task::spawn(
            "service.replay",
            self.running.track_future(async move {
                let replay = spool.replay(options, meter, chunks);
                let until_shutdown = async {
                    let mut replay = std::pin::pin!(replay);
                    tokio::select! {
                        sent = &mut replay => return sent,
                        () = cut_off.cancelled() => stop.now(StopReason::Shutdown),
                    }
                    replay.await
                };
                let sent = until(until_shutdown, deadline, &stop).await;
                // The client may have gone.
                let _ = end_sender.send(
                    sent.map(|sha256| Ended { rows, sha256 })
                        .map_err(|failure| told_by_stop(failure, stop.reason())),
                );
                drop(slot);
            }),
        );
        // A damaged first segment is a plain error, too.
        let known = feed.begin(known_now(schema), request.deadline).await?;
        Ok(RowStream {
            known,
            header: Header {
                export_id: id,
                fields: Vec::new(),
                arrow_schema: bytes::Bytes::new(),
                guarantee,
                first_row,
                expires_at: result.expires_at,
                admission: None,
            },
            feed,
        })
    }
}

fn known_now(schema: StreamSchema) -> oneshot::Receiver<StreamSchema> {
    let (sender, known) = oneshot::channel();
    // The receiver is right here.
    let _ = sender.send(schema);
    known
}

fn time_zone(name: Option<&str>) -> Result<TimeZone, Failure> {
    match name {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name)
            .map_err(|error| Failure::internal(format!("the time zone of a stored spec: {error}"))),
    }
}
