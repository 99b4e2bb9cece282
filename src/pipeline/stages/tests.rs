use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use arrow::{
    array::{AsArray, Int64Array},
    datatypes::Int64Type,
};
use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    format::{Payload, Render},
    pipeline::{Bounds, Ends, Meter, Sizes},
    source::{Description, Estimate, QueryText, SqlOrigin},
};

use super::*;

const BATCH_ROWS: i64 = 1_000;
const BATCHES: i64 = 5;

/// Gives [`BATCHES`] batches of ascending numbers, and then its connection breaks.
struct Breaks;

#[async_trait]
impl Source for Breaks {
    fn kind(&self) -> &'static str {
        "breaks"
    }

    async fn default_schema(&self) -> Result<Option<String>, source::Error> {
        unreachable!("only read")
    }

    async fn describe(&self, _: &Query) -> Result<Description, source::Error> {
        unreachable!("only read")
    }

    async fn estimate(
        &self,
        _: &Query,
        _: std::time::Duration,
    ) -> Result<Option<Estimate>, source::Error> {
        unreachable!("only read")
    }

    fn read<'a>(
        &'a self,
        _: &'a Query,
        _: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> LocalBoxFuture<'a, Result<ReadSummary, source::Error>> {
        Box::pin(async move {
            let batch = |number: i64| {
                let rows = number * BATCH_ROWS..(number + 1) * BATCH_ROWS;
                let array: arrow::array::ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
                RecordBatch::try_from_iter([("id", array)]).unwrap()
            };
            out.schema(batch(0).schema())?;
            for number in 0..BATCHES {
                out.batch(batch(number))?;
            }
            Err(source::Error::Unavailable {
                operator: "broken".to_owned(),
            })
        })
    }
}

/// Renders nothing before it may, and refuses one row.
struct Gated {
    gate: Arc<Mutex<()>>,
    wrong_row: Option<i64>,
}

impl Render for Gated {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, format::Error> {
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        let first = batch.column(0).as_primitive::<Int64Type>().value(0);
        match self.wrong_row {
            Some(row) if (first..first + BATCH_ROWS).contains(&row) => Err(format::Error::Value {
                reason: "VALUE_TOO_LONG",
                row: (row - first) as u64,
                column: "id".to_owned(),
                message: "too long".to_owned(),
            }),
            _ => Ok(Rendered {
                rows: batch.num_rows() as u64,
                payload: Payload::Batch(batch),
            }),
        }
    }
}

struct Counts;

impl Sink for Counts {
    fn start(&mut self, _: Ends) -> Result<(), Failure> {
        Ok(())
    }

    fn push(&mut self, _: Rendered) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Written, Failure> {
        panic!("the source broke")
    }
}

/// How the run ends, and the rows that were written, when nothing is rendered before the source has broken.
fn run_broken(wrong_row: Option<i64>) -> (Failure, u64) {
    let sizes = Sizes {
        bounds: Arc::new(Bounds::new(1 << 20, 16, 1 << 20)),
        batch_rows: Arc::default(),
        transform_workers: AtomicU32::new(2),
    };
    let run = Run::new(&sizes, Arc::new(Meter::new(None)));
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let render = Gated {
        gate: gate.clone(),
        wrong_row,
    };
    let prepare: Prepare = Box::new(move |schema| {
        Ok(Stages {
            transform: Transform::identity(schema.clone()),
            render: Arc::new(render),
            sink: Box::new(Counts),
        })
    });
    let (out, ready) = reader_out(prepare, run.clone());
    let reader_run = run.clone();
    let reader = thread::spawn(move || {
        let query = Query {
            text: QueryText::Sql {
                sql: String::new(),
                origin: SqlOrigin::AdHoc,
            },
            params: Vec::new(),
        };
        let options = ReadOptions {
            batch_rows: Arc::default(),
            batch_bytes_max: usize::MAX,
            statement_timeout: std::time::Duration::MAX,
            rows_max: None,
            cancel: CancellationToken::new(),
        };
        read(&Breaks, &query, &options, out, &reader_run).is_none()
    });
    let stages = ready.blocking_recv().unwrap();
    let behind = spawn_behind("test", stages, 2, &run);
    assert!(reader.join().unwrap());
    drop(closed);
    for thread in behind {
        assert!(thread.blocking_recv().unwrap().unwrap().is_none());
    }
    let failure = run.complete(None, None, None).unwrap_err();
    (failure, run.meter.rows_written.load(Ordering::Relaxed))
}

#[test]
fn rows_before_the_source_broke_are_written_and_counted() {
    let (failure, written) = run_broken(None);
    assert_eq!(failure.reason, "SOURCE_UNAVAILABLE");
    assert!(failure.retryable);
    assert_eq!(written as i64, BATCHES * BATCH_ROWS);
}

#[test]
fn a_wrong_row_is_told_before_the_source_that_broke_behind_it() {
    for row in [10, 4_321] {
        let (failure, written) = run_broken(Some(row));
        assert_eq!(failure.reason, "VALUE_TOO_LONG");
        assert_eq!(failure.metadata["row"], row.to_string());
        assert_eq!(written as i64, row / BATCH_ROWS * BATCH_ROWS);
    }
}

#[test]
fn without_a_thread_another_attempt_may_succeed() {
    assert!(no_thread(&std::io::Error::other("none left")).retryable);
}
