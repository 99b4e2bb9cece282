//! From a spec to stages: the query resolved against the configuration, the transforms compiled against a schema, the
//! encoder chosen.
//!
//! Used to check a request at submit, and again when its job runs: rights and definitions are those of that moment.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::{Bytes, BytesMut};
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::{
    export::{
        Code, Column, ExportId, ExportSpec, Failure, Fence, Field, Format, ReadFrom, RowEncoding,
        Violation,
    },
    format::{
        self, EncodeOptions, Encoder, Render,
        rows::{RowOptions, RowRender},
        spool::SpoolEncoder,
    },
    source::{self, BatchOut, Catalog, Estimate, ReadOptions, Resolved, Turn},
    storage::{self, ResultStore, Upload},
    task,
    transform::{self, Transform},
};

use super::{FileSink, Meter, Prepare, Stages, stages::no_thread};

/// A spec that the configuration allows.
#[derive(Clone)]
pub struct Plan {
    pub spec: ExportSpec,
    resolved: Resolved,
    time_zone: TimeZone,
}

/// What a plan would return.
#[derive(Clone, Debug)]
pub struct Described {
    pub fields: Vec<Field>,
    pub warnings: Vec<String>,
}

/// Where a file goes.
pub struct FileTarget {
    pub results: ResultStore,
    pub id: ExportId,
    pub fence: Fence,
    pub meter: Arc<Meter>,
    /// For encoders that need temporary files.
    pub scratch: PathBuf,
}

impl Plan {
    /// # Errors
    /// NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT, as the catalog says it.
    pub async fn new(catalog: &Catalog, spec: ExportSpec) -> Result<Self, Failure> {
        let time_zone = match &spec.time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                Failure::invalid_field(
                    "spec.time_zone",
                    format!("{name:?} is no IANA time zone; one looks like Europe/Paris"),
                )
            })?,
        };
        let resolved = catalog.resolve(&spec).await?;
        Ok(Self {
            spec,
            resolved,
            time_zone,
        })
    }

    /// The right to look at the source without being an export.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED / SOURCE_BUSY when as many as may do so for too long.
    pub async fn turn(&self) -> Result<Turn, Failure> {
        self.resolved.turn().await
    }

    /// Prepares the query at the source, compiles the transforms, and makes sure that the format takes the result.
    pub async fn describe(&self, _turn: &Turn, scratch: PathBuf) -> Result<Described, Failure> {
        let description = self
            .resolved
            .source
            .describe(&self.resolved.query)
            .await
            .map_err(source::Error::into_failure)?;
        let (plan, schema) = (self.clone(), description.schema);
        // Thousands of expressions take seconds.
        let fields = on_own_thread("plan", move || {
            let transform = plan.transform(&schema)?;
            plan.encoder(transform.output_schema(), scratch)?;
            Ok(format::text::fields(transform.output_schema()))
        })
        .await?;
        Ok(Described {
            fields,
            // They name the source's columns, and a definition shows only its own.
            warnings: match &self.resolved.fixed {
                Some(_) => Vec::new(),
                None => description.warnings,
            },
        })
    }

    /// Rows that the source would give, before any filter of ours.
    pub async fn estimate(
        &self,
        _turn: &Turn,
        patience: Duration,
    ) -> Result<Option<Estimate>, Failure> {
        self.resolved
            .source
            .estimate(&self.resolved.query, patience)
            .await
            .map_err(source::Error::into_failure)
    }

    /// SHA-256 of the SQL text, lower-case hex.
    pub fn query_hash(&self) -> String {
        self.resolved.query.hash()
    }

    pub fn source_name(&self) -> &str {
        &self.resolved.name
    }

    pub fn expected_rows_per_second(&self) -> u64 {
        self.resolved.options.expected_rows_per_second
    }

    pub fn statement_timeout(&self) -> Duration {
        self.resolved.options.statement_timeout
    }

    pub fn time_zone(&self) -> &TimeZone {
        &self.time_zone
    }

    pub(super) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The definition's transform first, the caller's behind it: what the caller sees is the definition's output. CPU work,
    /// not for the runtime's threads.
    pub fn transform(&self, schema: &SchemaRef) -> Result<Transform, Failure> {
        let fixed = match &self.resolved.fixed {
            None => Transform::identity(schema.clone()),
            Some(fixed) => transform::compile(
                schema,
                transform::Request {
                    columns: &fixed.columns,
                    filter: fixed.filter.as_deref(),
                    path: "definition.",
                },
            )
            .map_err(|error| broken_definition(&fixed.definition, error.into_failure()))?,
        };
        let asked = transform::compile(
            fixed.output_schema(),
            transform::Request {
                columns: &self.spec.columns,
                filter: self.spec.filter.as_deref(),
                path: "spec.",
            },
        )
        .map_err(transform::Error::into_failure);
        let mut changed = match &self.resolved.fixed {
            None => Vec::new(),
            Some(of) => changed_columns(&of.columns, &self.spec.columns),
        };
        match asked {
            Ok(asked) if changed.is_empty() => Ok(fixed.then(asked)),
            Err(failure) if changed.is_empty() => Err(failure),
            asked => {
                changed.extend(asked.err().into_iter().flat_map(|other| other.violations));
                Err(Failure::invalid_fields(changed))
            }
        }
    }

    /// The encoder of the file, or of the spool when no format was asked for.
    pub fn encoder(
        &self,
        schema: &SchemaRef,
        scratch: PathBuf,
    ) -> Result<Arc<dyn Encoder>, Failure> {
        let options = EncodeOptions {
            schema: schema.clone(),
            time_zone: self.time_zone.clone(),
            scratch,
        };
        match &self.spec.format {
            None => Ok(Arc::new(
                SpoolEncoder::new(schema).map_err(format::Error::into_failure)?,
            )),
            Some(format) => format::encoder(format, options).map_err(format::Error::into_failure),
        }
    }

    /// For display: the client's name, else one made of what is exported. Never part of a path.
    pub fn file_name(&self, extension: &str) -> String {
        let stem = match (&self.spec.file_name, &self.spec.from) {
            (Some(name), _) => return with_extension(name, extension, self.spec.format.as_ref()),
            (None, ReadFrom::Definition(name)) => name,
            (None, ReadFrom::Table(table)) => &table.name,
            (None, ReadFrom::Sql(_)) => &self.spec.source,
        };
        format!("{stem}{extension}")
    }

    /// The first rows after transforms, read on a thread of their own; the query is stopped at the source behind them.
    ///
    /// Returns the wire bytes of `ValueRows`.
    pub async fn sample(&self, turn: Turn, rows_max: u64) -> Result<Bytes, Failure> {
        let plan = self.clone();
        let cancel = CancellationToken::new();
        // A caller that goes away stops the read.
        let _stop = cancel.clone().drop_guard();
        on_own_thread("sample", move || {
            let sample = plan.read_sample(rows_max, cancel);
            drop(turn);
            sample
        })
        .await
    }

    fn read_sample(&self, rows_max: u64, cancel: CancellationToken) -> Result<Bytes, Failure> {
        let options = ReadOptions {
            batch_rows: Arc::new(AtomicU32::new(u32::try_from(rows_max).unwrap_or(u32::MAX))),
            batch_bytes_max: super::BATCH_BYTES_MAX,
            statement_timeout: self.statement_timeout().min(SAMPLE_PATIENCE),
            rows_max: Some(rows_max),
            cancel,
        };
        let mut out = Collected::default();
        source::read_on_this_thread(
            self.resolved.source.as_ref(),
            &self.resolved.query,
            &options,
            &mut out,
        )
        .map_err(source::Error::into_failure)?;
        let schema = out
            .schema
            .ok_or_else(|| Failure::internal("the source ended without a schema"))?;
        let transform = self.transform(&schema)?;
        let options = RowOptions {
            encoding: RowEncoding::Values,
            max_batch_rows: Some(1),
            max_batch_bytes: None,
        };
        let render = RowRender::new(options, transform.output_schema(), &self.time_zone)
            .map_err(format::Error::into_failure)?;
        let mut wire = BytesMut::new();
        for batch in out.batches {
            let batch = transform
                .apply(batch)
                .map_err(transform::Error::into_failure)?;
            // Messages with one repeated field join into one by standing behind each other.
            // A row too large for a message is fine in a file: the sample ends before it.
            let Ok(chunks) = render.chunks(batch) else {
                break;
            };
            for chunk in chunks {
                if wire.len() + chunk.payload.len() > SAMPLE_BYTES_MAX {
                    return Ok(wire.freeze());
                }
                wire.extend_from_slice(&chunk.payload);
            }
        }
        Ok(wire.freeze())
    }

    /// Stages that fill a file (or a spool) in the result storage. Call it within the service's runtime.
    pub fn file_stages(&self, target: FileTarget) -> Prepare {
        let plan = self.clone();
        let runtime = tokio::runtime::Handle::current();
        Box::new(move |schema| {
            let transform = plan.transform(schema)?;
            let encoder = plan.encoder(transform.output_schema(), target.scratch.clone())?;
            let assembler = encoder.assembler().map_err(format::Error::into_failure)?;
            let upload = begin_elsewhere(&runtime, &target, encoder.extension())?;
            let render: Arc<dyn Render> = encoder;
            Ok(Stages {
                transform,
                render,
                sink: Box::new(FileSink::new(assembler, upload, target.meter)),
            })
        })
    }
}

/// Runs CPU-heavy or blocking work where it holds up nobody else; a panic there is an internal failure.
async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = task::spawn_thread(name.to_owned(), work).map_err(|error| no_thread(&error))?;
    match done.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panicked)) => Err(Failure::internal(panicked)),
        Err(_) => Err(Failure::internal(format!(
            "the thread {name} ended without a word"
        ))),
    }
}

/// Of the answer that carries it: clients refuse 4 MiB.
const SAMPLE_BYTES_MAX: usize = 1 << 20;

/// A sample is for a person who waits.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Collected {
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
}

impl BatchOut for Collected {
    fn schema(&mut self, schema: SchemaRef) -> Result<(), source::Closed> {
        self.schema = Some(schema);
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), source::Closed> {
        self.batches.push(batch);
        Ok(())
    }
}

/// Begins the upload on the service's runtime while this thread waits: the reader's thread drives a runtime of its own
/// and must not block on a future itself.
fn begin_elsewhere(
    runtime: &tokio::runtime::Handle,
    target: &FileTarget,
    extension: &'static str,
) -> Result<Upload, Failure> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let (results, id, fence) = (target.results.clone(), target.id, target.fence);
    let _entered = runtime.enter();
    drop(task::spawn("storage.begin", async move {
        // The receiver waits below for as long as this task lives.
        let _ = sender.send(results.begin(id, fence, extension).await);
    }));
    receiver
        .recv()
        .map_err(|_| Failure::internal("the storage task ended without a word"))?
        .map_err(storage::Error::into_failure)
}

fn with_extension(name: &str, extension: &str, format: Option<&Format>) -> String {
    let bare = format!(".{}", format.map_or("", Format::name));
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(extension) {
        name.to_owned()
    } else if lower.ends_with(&bare) {
        // orders.csv, gzipped: orders.csv.gz
        format!(
            "{name}{}",
            extension.strip_prefix(&bare).unwrap_or_default()
        )
    } else {
        format!("{name}{extension}")
    }
}

/// Columns that a definition fixes can be left out and reordered, not made into something else under the same name.
fn changed_columns(fixed: &[Column], asked: &[Column]) -> Vec<Violation> {
    let asked = asked.iter().enumerate();
    let changed = asked.filter(|(_, column)| {
        let is_changed = column.expression.is_some()
            || column.header.is_some()
            || column.number_format.is_some()
            || column.width.is_some();
        is_changed && fixed.iter().any(|fixed| fixed.name == column.name)
    });
    changed
        .map(|(index, _)| Violation {
            field: format!("spec.columns[{index}]"),
            description:
                "the definition fixes this column: give its name alone, or choose another name"
                    .to_owned(),
        })
        .collect()
}

/// What a definition fixes is the operator's: a caller learns that it is broken, not how.
fn broken_definition(name: &str, failure: Failure) -> Failure {
    Failure::new(
        Code::FailedPrecondition,
        "DEFINITION_BROKEN",
        format!("the definition {name} does not fit its query; its operator has to mend it"),
    )
    .operator(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::spec::Csv;

    #[test]
    fn a_file_name_gets_what_is_missing_of_its_extension() {
        let csv = Format::Csv(Csv::default());
        let named = |name, extension| with_extension(name, extension, Some(&csv));
        assert_eq!(named("orders", ".csv"), "orders.csv");
        assert_eq!(named("Orders.CSV", ".csv"), "Orders.CSV");
        assert_eq!(named("orders.csv", ".csv.gz"), "orders.csv.gz");
        assert_eq!(named("orders.v2", ".csv"), "orders.v2.csv");
    }
}
