//! Queries that take their time.

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use rowgate::source::{BatchOut, Closed, Error};

use super::{NO_ROW_EVER, file};
use crate::support::reading::{options, sql, start, table};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(45);

/// Goes away with the first batch that is smaller than it may be.
#[derive(Default)]
struct UntilSmall {
    small: Option<usize>,
}

impl BatchOut for UntilSmall {
    fn schema(&mut self, _schema: SchemaRef) -> Result<(), Closed> {
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), Closed> {
        if batch.num_rows() >= 1000 {
            return Ok(());
        }
        self.small = Some(batch.num_rows());
        Err(Closed)
    }
}

#[tokio::test]
async fn rows_of_a_slow_query_are_not_held_back() {
    let file = file("create table t(i integer)");
    // From row 5001 on each row takes a while, and there is no end of them.
    let text = "with recursive n(i) as (select 1 union all select i + 1 from n)
        select case when i <= 5000 then i else (
            with recursive m(j) as (select 1 union all select j + 1 from m where j < 100000)
            select count(*) from m where j > n.i) end as v
        from n";
    let resolved = sql(&file.url, text).await.expect("allowed");
    let running = start(resolved, options(), UntilSmall::default());
    let (outcome, out) = running.finish(PATIENCE).await;
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    assert!(out.small.is_some_and(|rows| rows > 0), "{:?}", out.small);
}

#[tokio::test]
async fn an_estimate_that_a_view_makes_endless_is_given_up() {
    let file = file(&format!("create view v as {NO_ROW_EVER}"));
    let resolved = table(&file.url, "v", &[], None).await;
    let patience = Duration::from_millis(200);
    let estimate = resolved.source.estimate(&resolved.query, patience);
    let estimate = tokio::time::timeout(PATIENCE, estimate).await;
    let estimate = estimate.expect("both questions are given up");
    assert_eq!(estimate.expect("no failure"), None);
}
