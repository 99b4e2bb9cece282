//! `DownloadResult`: the bytes of a file, from any offset.

use std::{ops::Range, pin::Pin};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    export::{Code, ExportId, Failure, ResultInfo, ResultKind, TenantId},
    storage::{self, ResultStore},
};

use super::{Service, readable};

/// Of one message: large enough for speed, far below the 4 MiB that clients accept.
const PIECE_BYTES: u64 = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DownloadRequest {
    pub id: ExportId,
    pub offset: u64,
    /// `None`: to the end.
    pub limit: Option<u64>,
}

pub struct Download {
    pub result: ResultInfo,
    pub offset: u64,
    /// Pieces of at most 256 KiB; none when the offset is the end.
    pub pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>,
    /// A shutdown waits for it within its grace time.
    pub permit: TaskTrackerToken,
}

impl Service {
    pub async fn download(
        &self,
        tenant: &TenantId,
        request: DownloadRequest,
    ) -> Result<Download, Failure> {
        let permit = self.enter()?;
        let job = self.job(tenant, request.id).await?;
        let result = readable(&job)?;
        if result.kind != ResultKind::File {
            return Err(Failure::new(
                Code::FailedPrecondition,
                "NOT_A_FILE",
                "the export holds rows, not a file; read it with StreamRows",
            ));
        }
        if request.offset > result.size_bytes {
            return Err(Failure::new(
                Code::OutOfRange,
                "OFFSET_PAST_END",
                format!(
                    "offset {} is past the end; the file has {} bytes",
                    request.offset, result.size_bytes
                ),
            )
            .metadata("size_bytes", result.size_bytes.to_string()));
        }
        let end = request.limit.map_or(result.size_bytes, |limit| {
            request.offset.saturating_add(limit).min(result.size_bytes)
        });
        let results = self.runner.results.clone();
        let pieces = pieces(results, result.path.clone(), request.offset..end);
        Ok(Download {
            result: result.clone(),
            offset: request.offset,
            pieces: Box::pin(pieces),
            permit,
        })
    }
}

fn pieces(
    results: ResultStore,
    path: String,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stream::try_unfold(range, move |left| {
        let (results, path) = (results.clone(), path.clone());
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let piece_end = left.end.min(left.start + PIECE_BYTES);
            let piece = results
                .read_range(&path, left.start..piece_end)
                .await
                .map_err(storage::Error::into_failure)?;
            Ok(Some((piece, piece_end..left.end)))
        }
    })
}
