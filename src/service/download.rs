//! `DownloadResult`: the bytes of a file, from any offset.

use std::{ops::Range, pin::Pin};

use bytes::Bytes;
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    export::{Code, ExportId, Failure, ResultInfo, ResultKind, TenantId},
    storage::{self, ResultStore},
};

use super::{Service, draining, readable};

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
    /// Pieces of at most 256 KiB; none when the offset is the end. A shutdown waits for it within its grace time, then
    /// cuts it off.
    pub pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>,
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
        let range = request.offset..end;
        let is_whole = range == (0..result.size_bytes);
        let pieces = Pieces {
            results: self.runner.results.clone(),
            path: result.path.clone(),
            left: range,
            whole: is_whole.then(|| (Sha256::new(), result.sha256.clone())),
            cut_off: self.cut_off.clone(),
            _permit: permit,
        };
        Ok(Download {
            result: result.clone(),
            offset: request.offset,
            pieces: Box::pin(stream::try_unfold(pieces, |mut pieces| async move {
                Ok(pieces.next().await?.map(|piece| (piece, pieces)))
            })),
        })
    }
}

/// What is still to be sent.
struct Pieces {
    results: ResultStore,
    path: String,
    left: Range<u64>,
    /// Of a call for all of the file: its SHA-256 so far, and the one that it was written with.
    whole: Option<(Sha256, String)>,
    cut_off: CancellationToken,
    _permit: TaskTrackerToken,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let end = self.left.end.min(self.left.start + PIECE_BYTES);
        let piece = tokio::select! {
            biased;
            () = self.cut_off.cancelled() => {
                return Err(draining("the server is shutting down; go on from the next offset"));
            }
            piece = self.results.read_range(&self.path, self.left.start..end) => piece,
        };
        let piece = piece.map_err(storage::Error::into_failure)?;
        self.left.start = end;
        self.check(&piece)?;
        Ok(Some(piece))
    }

    /// A wrong file's last piece is not sent. Hashing 256 KiB takes less than a millisecond, which a task may.
    fn check(&mut self, piece: &Bytes) -> Result<(), Failure> {
        let Some((sha256, expected)) = &mut self.whole else {
            return Ok(());
        };
        sha256.update(piece);
        if !self.left.is_empty() {
            return Ok(());
        }
        let found = hex::encode(sha256.finalize_reset());
        if found == *expected {
            return Ok(());
        }
        let operator = format!("{}: SHA-256 {found} instead of {expected}", self.path);
        Err(storage::Error::Damaged { operator }.into_failure())
    }
}
