//! Results in an object store: written in parts, visible only when complete, read from any offset, deleted.
//!
//! Owns the layout `<export id>/<fence>/result<extension>`: a path holds the fence, so that an owner that lost its job
//! can only ever write and delete what is its own. Refuses to know what is in the files and who may read them.

mod upload;

use std::{
    error::Error as StdError,
    io,
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload, local::LocalFileSystem, path::Path,
};

use crate::export::{Code, ExportId, Failure, Fence};

pub use upload::{Stored, Upload};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the result storage is full")]
    Full { operator: String },
    #[error("the stored result is gone")]
    NotFound { operator: String },
    #[error("the stored result is damaged")]
    Damaged { operator: String },
    #[error(
        "the result storage belongs to another queue: give this one a storage.url of its own, or delete the \
         storage's file .rowgate-queue if that queue is gone for good"
    )]
    Foreign,
    #[error("the result storage can't be used now")]
    Unavailable { operator: String },
}

impl Error {
    /// A full disk is not: another attempt would read everything again only to find it as full.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub fn into_failure(self) -> Failure {
        let message = self.to_string();
        match self {
            Self::Full { operator } => {
                Failure::new(Code::ResourceExhausted, "STORAGE_FULL", message).operator(operator)
            }
            Self::NotFound { operator } => {
                Failure::new(Code::DataLoss, "RESULT_LOST", message).operator(operator)
            }
            Self::Damaged { operator } => {
                Failure::new(Code::DataLoss, "RESULT_DAMAGED", message).operator(operator)
            }
            Self::Foreign => Failure::internal(message),
            Self::Unavailable { operator } => {
                Failure::new(Code::Unavailable, "STORAGE_UNAVAILABLE", message)
                    .operator(operator)
                    .retry_after(Duration::from_secs(5))
                    .retryable()
            }
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let operator = error.to_string();
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::NotFound { operator };
        }
        if io_cause(&error).is_some_and(is_full) {
            return Self::Full { operator };
        }
        Self::Unavailable { operator }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let operator = error.to_string();
        if is_full(&error) {
            Self::Full { operator }
        } else {
            Self::Unavailable { operator }
        }
    }
}

/// No space, a quota, or a file larger than `ulimit -f` allows.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// Where results are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ResultStore {
    store: Arc<dyn ObjectStore>,
    /// Set for a local folder: what a killed process left half written is no object yet, only a file.
    local_root: Option<PathBuf>,
}

impl ResultStore {
    /// A local folder, created when it is missing.
    pub fn local(root: &FsPath) -> Result<Self, Error> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new_with_prefix(&root)?.with_automatic_cleanup(true)),
            local_root: Some(root),
        })
    }

    /// Any store: tests inject failures with it.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            local_root: None,
        }
    }

    /// Begins a result. Nothing is visible under its path before [`Upload::finish`].
    pub async fn begin(
        &self,
        id: ExportId,
        fence: Fence,
        extension: &str,
    ) -> Result<Upload, Error> {
        let path = Path::from(format!("{id}/{fence}/result{extension}"));
        let durable = self
            .local_root
            .as_ref()
            .map(|root| root.join(path.as_ref()));
        let multipart = self.store.put_multipart(&path).await?;
        Ok(Upload::new(path.to_string(), multipart, durable))
    }

    /// The bytes of a short `range`, all of them.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file ends before the range does: stores cut a range to what there is.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let (path, wanted) = (Path::from(path), range.end.saturating_sub(range.start));
        let too_short = |bytes: u64| Error::Damaged {
            operator: format!("{path} has {bytes} bytes; {range:?} were to be read"),
        };
        match self.store.get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => Err(too_short(range.start + bytes.len() as u64)),
            // Each store has an error of its own for a range that begins behind the end.
            Err(error) => match self.store.head(&path).await {
                Ok(meta) if meta.size < range.end => Err(too_short(meta.size)),
                _ => Err(error.into()),
            },
        }
    }

    /// Marks the storage as this queue's; `identity` is the queue's own. Two queues that shared a storage would each
    /// collect the other's results as orphans.
    ///
    /// # Errors
    /// [`Error::Foreign`] when it is marked as another's.
    pub async fn claim_for(&self, identity: &str) -> Result<(), Error> {
        let path = Path::from(".rowgate-queue");
        let found = match self.read_mark(&path).await? {
            Some(found) => found,
            None => {
                let mark = PutPayload::from(identity.as_bytes().to_vec());
                let created = self
                    .store
                    .put_opts(&path, mark, PutMode::Create.into())
                    .await;
                match created {
                    Ok(_) => return Ok(()),
                    // Of two that start at once, one creates it.
                    Err(object_store::Error::AlreadyExists { .. }) => {
                        self.read_mark(&path).await?.unwrap_or_default()
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        match found == identity.as_bytes() {
            true => Ok(()),
            false => Err(Error::Foreign),
        }
    }

    async fn read_mark(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        match self.store.get(path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what was written under one fence, complete or not. Fine when nothing was.
    pub async fn discard(&self, id: ExportId, fence: Fence) -> Result<(), Error> {
        self.delete_below(&format!("{id}/{fence}")).await
    }

    /// Deletes everything of an export.
    pub async fn remove(&self, id: ExportId) -> Result<(), Error> {
        self.delete_below(&id.to_string()).await
    }

    /// The exports that have something stored, complete or half written, with the fences under which it was.
    pub async fn stored(&self) -> Result<Vec<(ExportId, Vec<Fence>)>, Error> {
        let top = self.list_names(None).await?;
        let mut exports = Vec::new();
        for name in top {
            let Some(id) = ExportId::parse(&name) else {
                continue;
            };
            let fences = self
                .list_names(Some(&name))
                .await?
                .iter()
                .filter_map(|fence| fence.parse().ok().map(Fence))
                .collect();
            exports.push((id, fences));
        }
        Ok(exports)
    }

    /// Names of the folders below a prefix.
    async fn list_names(&self, below: Option<&str>) -> Result<Vec<String>, Error> {
        if let Some(root) = &self.local_root {
            let folder = below.map_or_else(|| root.clone(), |name| root.join(name));
            let names = tokio::task::spawn_blocking(move || -> io::Result<Vec<String>> {
                match std::fs::read_dir(folder) {
                    Ok(entries) => Ok(entries
                        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                        .collect()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                    Err(error) => Err(error),
                }
            });
            return Ok(names.await.map_err(io::Error::other)??);
        }
        let prefix = below.map(Path::from);
        let listing = self.store.list_with_delimiter(prefix.as_ref()).await?;
        Ok(listing
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect())
    }

    async fn delete_below(&self, prefix: &str) -> Result<(), Error> {
        if let Some(root) = &self.local_root {
            let folder = root.join(prefix);
            return match tokio::fs::remove_dir_all(&folder).await {
                Ok(()) => {
                    // The export's own folder goes with its last fence; it may hold others.
                    if let Some(parent) = folder.parent().filter(|parent| *parent != root) {
                        let _ = tokio::fs::remove_dir(parent).await;
                    }
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        let prefix = Path::from(prefix);
        let paths = self.store.list(Some(&prefix)).map_ok(|meta| meta.location);
        self.store
            .delete_stream(paths.boxed())
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_queues_that_claim_a_storage_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let results = ResultStore::local(folder.path()).unwrap();
        let identities: Vec<String> = (0..16).map(|number| format!("queue {number}")).collect();
        let claims = identities
            .iter()
            .map(|identity| results.claim_for(identity));
        let outcomes = futures::future::join_all(claims).await;
        let claimed: Vec<_> = std::iter::zip(&identities, &outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .collect();
        assert_eq!(claimed.len(), 1, "{outcomes:?}");
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Ok(()) | Err(Error::Foreign)))
        );
        results.claim_for(claimed[0].0).await.unwrap();
    }
}
