//! SQLite as a source: one file, opened read-only, stepped on the calling thread.
//!
//! Owns the file's path and how a query becomes batches. The parts: `session` opens the file and lets nothing but
//! reading through, `watch` interrupts a query from outside, `typing` gives columns their types, `column` fills
//! Arrow builders, `bind` binds parameters, `read` drives them.
//!
//! SQLite types values, not columns. A column takes the type it was declared with only where its first rows agree, and
//! a later value of another kind is an error that names its row: nothing is ever converted in silence. The table is in
//! `typing`.

mod bind;
mod column;
mod error;
mod read;
mod session;
mod typing;
mod watch;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;

use super::{BatchOut, Description, Error, Estimate, Query, ReadOptions, ReadSummary, Source};

/// Describing runs the query up to its first rows; one that sorts or groups a large table reads all of it for that.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(60);

pub struct SqliteSource {
    path: PathBuf,
}

impl SqliteSource {
    /// `sqlite://PATH`: the path is relative unless it begins with `/`. The file is opened when it is first read.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(url: &str) -> Result<Self, String> {
        let path = url
            .strip_prefix("sqlite://")
            .ok_or("must begin with sqlite://")?;
        if path.is_empty() {
            return Err("must name a file: sqlite://PATH".to_owned());
        }
        if path.contains('?') {
            return Err("takes no options behind the path".to_owned());
        }
        Ok(Self { path: path.into() })
    }

    /// Runs `work` on a blocking thread. Its token fires when the caller stops waiting, so that no query outlives
    /// the call that asked for it.
    async fn on_blocking_thread<T: Send + 'static>(
        &self,
        query: &Query,
        work: impl FnOnce(PathBuf, Query, CancellationToken) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let cancel = CancellationToken::new();
        let _fires_on_drop = cancel.clone().drop_guard();
        let (path, query) = (self.path.clone(), query.clone());
        tokio::task::spawn_blocking(move || work(path, query, cancel))
            .await
            .unwrap_or_else(|panic| {
                Err(Error::Unavailable {
                    operator: format!("the SQLite thread ended: {panic}"),
                })
            })
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    /// SQLite's own name for the file that was opened; nothing else can be attached.
    async fn default_schema(&self) -> Result<Option<String>, Error> {
        Ok(Some("main".to_owned()))
    }

    async fn describe(&self, query: &Query) -> Result<Description, Error> {
        self.on_blocking_thread(query, |path, query, cancel| {
            read::describe(&path, &query, cancel, DESCRIBE_TIMEOUT)
        })
        .await
    }

    async fn estimate(&self, query: &Query, patience: Duration) -> Result<Option<Estimate>, Error> {
        self.on_blocking_thread(query, move |path, query, cancel| {
            read::estimate(&path, &query, cancel, patience)
        })
        .await
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        options: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> LocalBoxFuture<'a, Result<ReadSummary, Error>> {
        Box::pin(async move { read::read(&self.path, query, options, out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let path = |url| SqliteSource::new(url).map(|source| source.path);
        assert_eq!(path("sqlite://a/b.db"), Ok("a/b.db".into()));
        assert_eq!(path("sqlite:///a/b.db"), Ok("/a/b.db".into()));
        assert!(path("sqlite://").is_err());
        assert!(path("postgres://x").is_err());
        assert!(path("sqlite://a.db?mode=rwc").is_err());
    }
}
