//! Reading from a source as the pipeline does: by name through the catalog, on a thread of its own, into memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU32, mpsc},
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    util::display::{ArrayFormatter, FormatOptions},
};
use rowgate::{
    export::{ExportSpec, Failure, ReadFrom, TableRead, field::metadata},
    source::{
        BatchOut, Catalog, Closed, DefinitionOptions, Error, ParamOptions, ReadOptions,
        ReadSummary, Resolved, SourceOptions, read_on_this_thread,
    },
};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Of SQLite: 5,500 rows are there at once, and then it runs on for ever without another. Its columns are known, and a
/// count of its rows never ends.
pub const SILENT_SQLITE: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n where i <= 5500";

/// A source named `s` that allows everything.
pub fn catalog(url: &str) -> Catalog {
    Catalog::new(BTreeMap::from([("s".to_owned(), source(url))]))
        .expect("the configuration is good")
}

fn source(url: &str) -> SourceOptions {
    SourceOptions {
        url: url.to_owned().into(),
        slots: 4,
        expected_rows_per_second: 50_000,
        statement_timeout: Duration::from_secs(60),
        allow_tables: vec!["*".to_owned()],
        allow_sql: true,
        definitions: BTreeMap::new(),
    }
}

pub fn spec(from: ReadFrom) -> ExportSpec {
    ExportSpec {
        source: "s".to_owned(),
        from,
        params: BTreeMap::new(),
        columns: Vec::new(),
        filter: None,
        format: None,
        file_name: None,
        time_zone: None,
        ttl: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub async fn sql(url: &str, sql: &str) -> Result<Resolved, Failure> {
    sql_with(url, sql, &[]).await
}

pub async fn sql_with(url: &str, sql: &str, params: &[(&str, Value)]) -> Result<Resolved, Failure> {
    let mut spec = spec(ReadFrom::Sql(sql.to_owned()));
    for (name, value) in params {
        spec.params.insert((*name).to_owned(), value.clone());
    }
    catalog(url).resolve(&spec).await
}

/// The definition `report`, whose text is the operator's, with its one parameter if it has one: name, type, value.
pub async fn definition(
    url: &str,
    sql: &str,
    param: Option<(&str, &str, Value)>,
) -> Result<Resolved, Failure> {
    let params = param.iter().map(|(name, r#type, _)| {
        let options = ParamOptions {
            r#type: (*r#type).to_owned().try_into().expect("a type"),
            required: true,
            description: String::new(),
            default: None,
        };
        ((*name).to_owned(), options)
    });
    let definition = DefinitionOptions {
        title: String::new(),
        sql: sql.to_owned(),
        params: params.collect(),
        columns: Vec::new(),
        filter: None,
    };
    let options = SourceOptions {
        allow_tables: Vec::new(),
        allow_sql: false,
        definitions: BTreeMap::from([("report".to_owned(), definition)]),
        ..source(url)
    };
    let catalog = Catalog::new(BTreeMap::from([("s".to_owned(), options)]))
        .expect("the configuration is good");
    let mut spec = spec(ReadFrom::Definition("report".to_owned()));
    if let Some((name, _, value)) = param {
        spec.params.insert(name.to_owned(), value);
    }
    catalog.resolve(&spec).await
}

pub async fn table(url: &str, name: &str, order_by: &[&str], limit: Option<u64>) -> Resolved {
    let read = TableRead {
        name: name.to_owned(),
        order_by: order_by.iter().map(|order| (*order).to_owned()).collect(),
        limit,
    };
    catalog(url)
        .resolve(&spec(ReadFrom::Table(read)))
        .await
        .expect("the table may be read")
}

pub fn options() -> ReadOptions {
    ReadOptions {
        batch_rows: Arc::new(AtomicU32::new(1000)),
        batch_bytes_max: 1 << 20,
        statement_timeout: Duration::from_secs(60),
        rows_max: None,
        cancel: CancellationToken::new(),
    }
}

/// Everything that a read produced.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub schema: Option<SchemaRef>,
    pub batches: Vec<RecordBatch>,
}

impl BatchOut for Collected {
    fn schema(&mut self, schema: SchemaRef) -> Result<(), Closed> {
        assert!(self.schema.replace(schema).is_none(), "one schema");
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), Closed> {
        assert_eq!(
            Some(batch.schema()),
            self.schema,
            "batches follow the schema"
        );
        self.batches.push(batch);
        Ok(())
    }
}

impl Collected {
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// `name: type` of each column, with its kind where it has one.
    pub fn types(&self) -> Vec<String> {
        let schema = self.schema.as_ref().expect("a schema came");
        types(schema)
    }

    /// Values as text, NULL as `NULL`.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let options = FormatOptions::new().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &self.batches {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|array| ArrayFormatter::try_new(array, &options).expect("a printable type"))
                .collect();
            for row in 0..batch.num_rows() {
                let cells = columns.iter().map(|column| column.value(row).to_string());
                rows.push(cells.collect());
            }
        }
        rows
    }
}

pub fn types(schema: &SchemaRef) -> Vec<String> {
    let fields = schema.fields().iter().map(|field| {
        let kind = field.metadata().get(metadata::KIND);
        let kind = kind.map_or(String::new(), |kind| format!(" ({kind})"));
        format!("{}: {}{kind}", field.name(), field.data_type())
    });
    fields.collect()
}

/// A read that runs on its own thread.
pub struct Running<O> {
    pub cancel: CancellationToken,
    done: oneshot::Receiver<(Result<ReadSummary, Error>, O)>,
}

impl<O> Running<O> {
    /// The outcome; panics when it takes longer than `patience`.
    pub async fn finish(self, patience: Duration) -> (Result<ReadSummary, Error>, O) {
        tokio::time::timeout(patience, self.done)
            .await
            .unwrap_or_else(|_| panic!("the read still runs after {patience:?}"))
            .expect("the read's thread did not panic")
    }
}

pub fn start<O: BatchOut + Send + 'static>(
    resolved: Resolved,
    options: ReadOptions,
    mut out: O,
) -> Running<O> {
    let (send, done) = oneshot::channel();
    let cancel = options.cancel.clone();
    std::thread::spawn(move || {
        let source = Arc::clone(&resolved.source);
        let outcome = read_on_this_thread(&*source, &resolved.query, &options, &mut out);
        // Nobody listens where the test has failed already.
        let _ = send.send((outcome, out));
    });
    Running { cancel, done }
}

/// A whole read, in memory.
pub async fn read(
    resolved: Resolved,
    options: ReadOptions,
) -> (Result<ReadSummary, Error>, Collected) {
    start(resolved, options, Collected::default())
        .finish(Duration::from_secs(120))
        .await
}

pub async fn read_sql(url: &str, text: &str) -> Collected {
    let resolved = sql(url, text).await.expect("the query is allowed");
    let (outcome, collected) = read(resolved, options()).await;
    outcome.unwrap_or_else(|error| panic!("{error:?}, in: {text}"));
    collected
}

/// A receiver that takes one batch, says so, and blocks until it is let go: back-pressure.
pub struct Blocking {
    pub taken: Option<oneshot::Sender<()>>,
    pub release: mpsc::Receiver<()>,
    pub rows: usize,
    /// In rows, of each batch.
    pub sizes: Vec<usize>,
}

impl BatchOut for Blocking {
    fn schema(&mut self, _schema: SchemaRef) -> Result<(), Closed> {
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), Closed> {
        self.rows += batch.num_rows();
        self.sizes.push(batch.num_rows());
        if let Some(taken) = self.taken.take() {
            let _ = taken.send(());
            // Released by a message, or by a test that is over.
            let _ = self.release.recv();
        }
        Ok(())
    }
}

/// What [`Blocking`] needs on the other side: the signal that a batch is taken, and the key.
pub fn blocking() -> (Blocking, oneshot::Receiver<()>, mpsc::Sender<()>) {
    let ((taken, is_taken), (release, released)) = (oneshot::channel(), mpsc::channel());
    let out = Blocking {
        taken: Some(taken),
        release: released,
        rows: 0,
        sizes: Vec::new(),
    };
    (out, is_taken, release)
}
