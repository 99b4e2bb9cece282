//! One result on its way into the storage, as a `std::io::Write` for the thread that assembles it.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use object_store::{MultipartUpload, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::Error;

/// Large enough for few calls to a local folder, small enough that the two in flight and the one that fills hardly show
/// in the process's memory when the disk falls behind. Stores in the network will want 5 MiB and more.
const PART_BYTES: usize = 1 << 20;
const PARTS_IN_FLIGHT: usize = 2;

/// Where a complete result is, and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub path: String,
    pub size_bytes: u64,
    /// Lower-case hex, over all bytes.
    pub sha256: String,
}

/// Call its methods from a thread that may block, never from a runtime's. Dropped before [`Upload::finish`], it leaves
/// nothing visible.
pub struct Upload {
    path: String,
    parts: Option<WriteMultipart>,
    runtime: Handle,
    hash: Sha256,
    size_bytes: u64,
    since_part_bytes: usize,
    /// Set for a local folder: the file that must be on disk before the result is announced.
    durable: Option<PathBuf>,
}

impl Upload {
    /// Must be called within a runtime.
    pub(super) fn new(
        path: String,
        multipart: Box<dyn MultipartUpload>,
        durable: Option<PathBuf>,
    ) -> Self {
        Self {
            path,
            parts: Some(WriteMultipart::new_with_chunk_size(multipart, PART_BYTES)),
            runtime: Handle::current(),
            hash: Sha256::new(),
            size_bytes: 0,
            since_part_bytes: 0,
            durable,
        }
    }

    /// Waits for the last part, then makes the result visible.
    pub fn finish(mut self) -> Result<Stored, Error> {
        let parts = self.parts.take().ok_or_else(|| Error::Unavailable {
            operator: "an upload that failed was finished".to_owned(),
        })?;
        self.runtime.block_on(parts.finish())?;
        if let Some(path) = &self.durable {
            // SUCCEEDED is a promise that outlives a power cut.
            std::fs::File::open(path)?.sync_all()?;
            // The fence's folder, the export's and the root may all be new.
            for folder in path.ancestors().skip(1).take(3) {
                std::fs::File::open(folder)?.sync_all()?;
            }
        }
        Ok(Stored {
            path: std::mem::take(&mut self.path),
            size_bytes: self.size_bytes,
            sha256: hex::encode(std::mem::take(&mut self.hash).finalize()),
        })
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(parts) = &mut self.parts else {
            return Err(io::Error::other("the upload failed before"));
        };
        if self.since_part_bytes >= PART_BYTES {
            self.since_part_bytes = 0;
            let room = self
                .runtime
                .block_on(parts.wait_for_capacity(PARTS_IN_FLIGHT));
            if let Err(error) = room {
                self.parts = None;
                return Err(io::Error::other(Error::from(error)));
            }
        }
        let _runtime = self.runtime.enter();
        parts.write(bytes);
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.since_part_bytes += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Dropping the parts cancels what is in flight; the local store then removes its staged file. A store in
        // the network is told to forget the parts.
        if let Some(parts) = self.parts.take() {
            let _runtime = self.runtime.enter();
            drop(crate::task::spawn("storage.abort", async move {
                if let Err(error) = parts.abort().await {
                    tracing::warn!(%error, "an unfinished upload could not be aborted");
                }
            }));
        }
    }
}
