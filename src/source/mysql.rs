//! MySQL and MariaDB as sources, through sqlx and the prepared binary protocol.
//!
//! The parts: `session` opens a connection in a read-only transaction and kills it from outside, `plan` prepares a query
//! and gives its columns their types (the table is in `columns`), `bind` binds parameters, `decode` fills Arrow builders
//! from raw bytes, `read` drives them, `estimate` asks the planner.

mod bind;
mod columns;
mod decode;
mod error;
mod estimate;
mod plan;
mod read;
mod session;
mod wkt;

use std::{str::FromStr, time::Duration};

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use sqlx::{ConnectOptions, mysql::MySqlConnectOptions};

use self::session::Session;
use super::{BatchOut, Description, Error, Estimate, Query, ReadOptions, ReadSummary, Source};

/// Describing only prepares; what can take long is a lock on a table that is being altered.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

pub struct MysqlSource {
    options: MySqlConnectOptions,
}

impl MysqlSource {
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, with sqlx's options for TLS and sockets behind a `?`.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(url: &str) -> Result<Self, String> {
        let options = MySqlConnectOptions::from_str(url)
            .map_err(|error| format!("is no MySQL URL: {error}"))?;
        let options = options
            .charset("utf8mb4")
            // `||` stays what it is on the server; `session` sets the rest of the mode.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .disable_statement_logging();
        Ok(Self { options })
    }
}

#[async_trait]
impl Source for MysqlSource {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    async fn default_schema(&self) -> Result<Option<String>, Error> {
        Ok(self.options.get_database().map(str::to_owned))
    }

    async fn describe(&self, query: &Query) -> Result<Description, Error> {
        let describe = async {
            let mut session = Session::open(&self.options).await?;
            session.limit_statements(DESCRIBE_TIMEOUT).await?;
            let plan = plan::plan(&mut session, query).await?;
            session.close().await;
            Ok(Description {
                schema: plan.schema(),
                warnings: Vec::new(),
            })
        };
        // The server's own limit says why; this one holds when nothing answers at all.
        tokio::time::timeout(DESCRIBE_TIMEOUT + ANSWER_PATIENCE, describe)
            .await
            .unwrap_or_else(|_| {
                Err(Error::Unavailable {
                    operator: "MySQL did not answer while a query was prepared".to_owned(),
                })
            })
    }

    async fn estimate(&self, query: &Query, patience: Duration) -> Result<Option<Estimate>, Error> {
        let estimate = estimate::estimate(&self.options, query, patience);
        match tokio::time::timeout(patience, estimate).await {
            Ok(estimate) => estimate,
            Err(_) => Ok(None),
        }
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        options: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> LocalBoxFuture<'a, Result<ReadSummary, Error>> {
        Box::pin(read::read(&self.options, query, options, out))
    }
}
