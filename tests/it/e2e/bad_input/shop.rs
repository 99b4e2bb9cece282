//! The same small shop behind a Rowgate, on each kind of database.

use rowgate::rpc::pb::{self, export_spec::From, format::Kind};
use tonic::Status;

use crate::support::{mariadb, postgres, rowgate::Rowgate};

const ROWS: i64 = 20_000;
/// The id at which the definition `failing` overflows.
pub const BREAKS_AT: i64 = 15_000;

/// `open` takes SQL and the table orders, `hasty` waits for no slow SQL, `closed` takes only its definitions, whose SQL
/// nobody may see. All are the same database.
const SOURCES: &str = r#"
[sources.open]
url = "{url}"
allow_tables = ["orders", "orders_2019"]
allow_sql = true

[sources.hasty]
url = "{url}"
allow_sql = true
statement_timeout = "500ms"

[sources.closed]
url = "{url}"

[sources.closed.definitions.cheap]
sql = "select id, name, amount from orders where amount < :below and 'sekrit' = 'sekrit' and (name = :name or :name is null)"
params = { below = { type = "int64", required = true }, name = { type = "text" } }

[sources.closed.definitions.broken]
sql = "select sekrit_column from orders"

[sources.closed.definitions.failing]
sql = "select id, {overflow} as big from orders where 'sekrit' = 'sekrit' order by id"

[sources.closed.definitions.masked]
sql = "select id, name, amount, 'sekrit' as extra from orders"
columns = [{ name = "id" }, { name = "name", expression = "mask(name, 1, 1)" }, { name = "amount" }]
filter = "amount < 100"

[sources.closed.definitions.misfit]
sql = "select id from orders"
columns = [{ name = "sekrit_column" }]
"#;

/// Lives as long as the shop.
enum Database {
    Sqlite,
    Postgres(#[expect(dead_code, reason = "dropped with the shop")] postgres::Database),
    Mariadb(#[expect(dead_code, reason = "dropped with the shop")] mariadb::Database),
}

pub struct Shop {
    pub rowgate: Rowgate,
    database: Database,
}

impl Shop {
    pub async fn sqlite() -> Self {
        Self::sqlite_with("").await
    }

    /// `toml` comes before the sources.
    pub async fn sqlite_with(toml: &str) -> Self {
        let held = crate::support::temp_dir();
        let db = rusqlite::Connection::open(held.path().join("shop.db")).unwrap();
        db.execute_batch(&format!(
            "create table orders(id integer primary key, name text not null, amount integer not null);
             create table salaries(amount integer);
             insert into orders with recursive n(i) as (select 1 union all select i + 1 from n where i < {ROWS})
             select i, 'customer ' || i, i % 1000 from n;"
        ))
        .unwrap();
        let sources = SOURCES
            .replace("{url}", "sqlite://{folder}/shop.db")
            .replace(
                "{overflow}",
                "case when id < {break} then 0 else abs(-9223372036854775807 - 1) end",
            );
        let rowgate = Rowgate::start_held(
            held,
            &format!(
                "{toml}\n{}",
                sources.replace("{break}", &BREAKS_AT.to_string())
            ),
        )
        .await;
        Self {
            rowgate,
            database: Database::Sqlite,
        }
    }

    pub async fn postgres() -> Self {
        let database = postgres::Database::create().await;
        database
            .execute(&format!(
                "create table orders(id bigint primary key, name text not null, amount bigint not null);
                 create table salaries(amount int);
                 insert into orders select i, 'customer ' || i, i % 1000 from generate_series(1, {ROWS}) i"
            ))
            .await;
        let sources = SOURCES.replace("{url}", &database.url).replace(
            "{overflow}",
            "9223372036854775807 + case when id < {break} then 0 else id end",
        );
        let rowgate = Rowgate::start(&sources.replace("{break}", &BREAKS_AT.to_string())).await;
        Self {
            rowgate,
            database: Database::Postgres(database),
        }
    }

    pub async fn mariadb() -> Self {
        let database = mariadb::Database::create().await;
        database
            .execute(&format!(
                "create table orders(id bigint primary key, name varchar(100) not null, amount bigint not null);
                 create table salaries(amount int);
                 insert into orders select seq, concat('customer ', seq), seq % 1000 from seq_1_to_{ROWS}"
            ))
            .await;
        let sources = SOURCES.replace("{url}", &database.url).replace(
            "{overflow}",
            "9223372036854775807 + case when id < {break} then 0 else id end",
        );
        let rowgate = Rowgate::start(&sources.replace("{break}", &BREAKS_AT.to_string())).await;
        Self {
            rowgate,
            database: Database::Mariadb(database),
        }
    }

    /// A Rowgate with sources of its own.
    pub fn of(rowgate: Rowgate) -> Self {
        Self {
            rowgate,
            database: Database::Sqlite,
        }
    }

    pub async fn each() -> [Self; 3] {
        [
            Self::sqlite().await,
            Self::postgres().await,
            Self::mariadb().await,
        ]
    }

    /// For messages, and for what databases do differently.
    pub fn kind(&self) -> &'static str {
        match self.database {
            Database::Sqlite => "sqlite",
            Database::Postgres(_) => "postgres",
            Database::Mariadb(_) => "mysql",
        }
    }

    pub async fn submit(&mut self, spec: pb::ExportSpec) -> Result<pb::Export, Status> {
        let request = pb::SubmitExportRequest {
            spec: Some(spec),
            ..Default::default()
        };
        self.submit_as(request).await
    }

    pub async fn submit_as(
        &mut self,
        request: pb::SubmitExportRequest,
    ) -> Result<pb::Export, Status> {
        let response = self.rowgate.exports.submit_export(request).await?;
        Ok(response.into_inner().export.unwrap_or_default())
    }

    /// The export at its end.
    pub async fn ended(&mut self, id: &str) -> pb::Export {
        let request = pb::GetStatusRequest {
            export_id: id.to_owned(),
            wait: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
        };
        let status = self.rowgate.exports.get_status(request).await.unwrap();
        let export = status.into_inner().export.unwrap();
        assert!(export.end_time.is_some(), "still not ended: {export:?}");
        export
    }

    /// Runs to its end, which must be good.
    pub async fn succeed(&mut self, spec: pb::ExportSpec) -> pb::Export {
        let export = self.submit(spec).await.unwrap();
        let export = self.ended(&export.id).await;
        assert_eq!(export.state(), pb::State::Succeeded, "{export:?}");
        export
    }

    /// Runs to its end, which must be FAILED.
    pub async fn fail(&mut self, spec: pb::ExportSpec) -> pb::Export {
        let export = self.submit(spec).await.unwrap();
        let export = self.ended(&export.id).await;
        assert_eq!(export.state(), pb::State::Failed, "{export:?}");
        assert!(export.result.is_none());
        export
    }

    /// What the call itself refused, or the error that came before the first event, or in the middle.
    pub async fn stream(
        &mut self,
        request: pb::StreamRowsRequest,
    ) -> Result<Vec<pb::StreamRowsResponse>, Status> {
        let mut stream = self
            .rowgate
            .exports
            .stream_rows(request)
            .await?
            .into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await? {
            events.push(event);
        }
        Ok(events)
    }

    pub async fn stream_of(
        &mut self,
        spec: pb::ExportSpec,
    ) -> Result<Vec<pb::StreamRowsResponse>, Status> {
        self.stream(pb::StreamRowsRequest {
            target: Some(pb::stream_rows_request::Target::Spec(spec)),
            encoding: pb::RowEncoding::JsonLines.into(),
            ..Default::default()
        })
        .await
    }

    pub async fn download(
        &mut self,
        request: pb::DownloadResultRequest,
    ) -> Result<Vec<u8>, Status> {
        let mut pieces = self
            .rowgate
            .exports
            .download_result(request)
            .await?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes)
    }

    /// Everything in the results folder but the mark that says whose it is.
    pub fn files(&self) -> Vec<String> {
        const MARK: &str = ".rowgate-queue";
        let mut files = Vec::new();
        let mut folders = vec![self.rowgate.folder.join("results")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() != MARK {
                    files.push(entry.path().display().to_string());
                }
            }
        }
        files
    }
}

pub fn spec(source: &str, from: From) -> pb::ExportSpec {
    pb::ExportSpec {
        source: source.to_owned(),
        from: Some(from),
        format: Some(csv()),
        ..Default::default()
    }
}

pub fn table(name: &str) -> pb::ExportSpec {
    let read = pb::TableRead {
        name: name.to_owned(),
        ..Default::default()
    };
    spec("open", From::Table(read))
}

pub fn sql(text: &str) -> pb::ExportSpec {
    spec("open", From::Sql(text.to_owned()))
}

pub fn definition(name: &str) -> pb::ExportSpec {
    spec("closed", From::Definition(name.to_owned()))
}

/// The same, as rows.
pub fn rows(spec: pb::ExportSpec) -> pb::ExportSpec {
    pb::ExportSpec {
        format: None,
        ..spec
    }
}

pub fn csv() -> pb::Format {
    format(Kind::Csv(pb::Csv::default()))
}

pub fn format(kind: Kind) -> pb::Format {
    pb::Format { kind: Some(kind) }
}

pub fn with_params(
    mut spec: pb::ExportSpec,
    params: &[(&str, prost_types::value::Kind)],
) -> pb::ExportSpec {
    for (name, kind) in params {
        let value = prost_types::Value {
            kind: Some(kind.clone()),
        };
        spec.params.insert((*name).to_owned(), value);
    }
    spec
}

pub fn column(name: &str, expression: &str) -> pb::Column {
    pb::Column {
        name: name.to_owned(),
        expression: expression.to_owned(),
        ..Default::default()
    }
}
