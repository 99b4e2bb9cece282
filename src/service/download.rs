//! `DownloadResult`: the bytes of a file, from any offset.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::{
    export::{Code, ExportId, Failure, ResultInfo, ResultKind, TenantId},
    storage,
};

use super::{Service, readable};

/// Of one message: large enough for speed, far below the 4 MiB that clients accept.
const PIECE_BYTES: usize = 256 << 10;

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
}

impl Service {
    pub async fn download(
        &self,
        tenant: &TenantId,
        request: DownloadRequest,
    ) -> Result<Download, Failure> {
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
        let pieces: Pin<Box<dyn Stream<Item = _> + Send>> = if request.offset == end {
            Box::pin(futures::stream::empty())
        } else {
            let stored = self
                .runner
                .results
                .read(&result.path, request.offset..end)
                .await
                .map_err(storage::Error::into_failure)?;
            Box::pin(pieces(stored))
        };
        Ok(Download {
            result: result.clone(),
            offset: request.offset,
            pieces,
        })
    }
}

/// Cuts what the storage gives into messages; short pieces pass as they are.
fn pieces(
    stored: impl Stream<Item = Result<Bytes, storage::Error>> + Send,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stored.flat_map(|next| {
        let cut = match next {
            Err(error) => vec![Err(error.into_failure())],
            Ok(mut bytes) => {
                let mut cut = Vec::with_capacity(bytes.len() / PIECE_BYTES + 1);
                while !bytes.is_empty() {
                    cut.push(Ok(bytes.split_to(bytes.len().min(PIECE_BYTES))));
                }
                cut
            }
        };
        futures::stream::iter(cut)
    })
}
