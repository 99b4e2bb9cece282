//! PostgreSQL as a source.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::LocalBoxFuture;

use super::{BatchOut, Description, Error, Estimate, Query, ReadOptions, ReadSummary, Source};

pub struct PostgresSource;

impl PostgresSource {
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(_url: &str) -> Result<Self, String> {
        Err("postgres sources are not there yet".to_owned())
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn default_schema(&self) -> Result<Option<String>, Error> {
        Ok(Some("public".to_owned()))
    }

    async fn describe(&self, _query: &Query) -> Result<Description, Error> {
        unimplemented!("landed with the next slice")
    }

    async fn estimate(&self, _query: &Query, _p: Duration) -> Result<Option<Estimate>, Error> {
        Ok(None)
    }

    fn read<'a>(
        &'a self,
        _query: &'a Query,
        _options: &'a ReadOptions,
        _out: &'a mut dyn BatchOut,
    ) -> LocalBoxFuture<'a, Result<ReadSummary, Error>> {
        unimplemented!("landed with the next slice")
    }
}
