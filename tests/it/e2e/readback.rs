//! What comes out equals the table, value for value: read by Python's csv and json, openpyxl, pyarrow and DuckDB, and
//! compared with what the database's own client says (psql, mariadb, Python's sqlite3). `readback/*.py` compare;
//! nothing there knows how Rowgate reads or writes a value.

mod client;
mod files;
mod matrix;
mod streams;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{self, mariadb, postgres, rowgate::Rowgate};

/// Of `benches/orders.sql`; `tables.py` adds some hundred rows of NULLs and extremes.
const ROWS: u32 = 3_000;

const COLUMNS: [(&str, &str); 12] = [
    ("id", "int"),
    ("order_no", "text"),
    ("customer_name", "text"),
    ("email", "text"),
    ("status", "int"),
    ("amount", "decimal:2"),
    ("quantity", "int"),
    ("discount", "float"),
    ("is_paid", "bool"),
    ("created_at", "timestamp"),
    ("ship_date", "date"),
    ("note", "text"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
}

/// A service with one source, `shop`, and the table `orders` in it.
struct Shop {
    rowgate: Rowgate,
    kind: Kind,
    url: String,
    folder: PathBuf,
    databases: (postgres::Database, Option<mariadb::Database>),
}

impl Shop {
    async fn open(kind: Kind) -> Self {
        let folder = support::temp_dir().keep();
        let postgres = postgres::Database::create().await;
        let mariadb = match kind {
            Kind::Mariadb => Some(mariadb::Database::create().await),
            Kind::Postgres | Kind::Sqlite => None,
        };
        let url = match (kind, &mariadb) {
            (Kind::Sqlite, _) => format!("sqlite://{}/shop.db", folder.display()),
            (_, Some(mariadb)) => mariadb.url.clone(),
            (_, None) => postgres.url.clone(),
        };
        let mut urls = vec![postgres.url.as_str()];
        urls.extend((kind != Kind::Postgres).then(|| url.trim_start_matches("sqlite://")));
        let rows = ROWS.to_string();
        let folder_text = folder.display().to_string();
        let mut arguments = vec![folder_text.as_str(), rows.as_str()];
        arguments.extend(urls);
        script("tables.py", &arguments).await;
        let config =
            format!("[sources.shop]\nurl = \"{url}\"\nallow_tables = [\"*\"]\nallow_sql = true\n");
        Self {
            rowgate: Rowgate::start_in(folder.clone(), &config).await,
            kind,
            url,
            folder,
            databases: (postgres, mariadb),
        }
    }

    /// The columns of `orders` as the checker knows them.
    fn columns(&self) -> Vec<Value> {
        let zoned = self.kind == Kind::Postgres;
        COLUMNS
            .iter()
            .map(|&(name, kind)| match kind {
                "timestamp" if zoned => json!({"name": name, "kind": "timestamptz"}),
                _ => json!({"name": name, "kind": kind}),
            })
            .collect()
    }

    fn source(&self) -> Value {
        let kind = match self.kind {
            Kind::Postgres => "postgres",
            Kind::Mariadb => "mariadb",
            Kind::Sqlite => "sqlite",
        };
        json!({"kind": kind, "url": self.url, "table": "orders", "order": "id"})
    }

    /// Runs SQL in the PostgreSQL database.
    async fn execute(&self, sql: &str) {
        self.databases.0.execute(sql).await;
    }

    /// Compares the results with the table; every reader of each has to find `rows` rows.
    async fn check(&self, job: &Value, rows: i64) {
        let path = self
            .folder
            .join(format!("job-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&path, job.to_string()).unwrap();
        let compared: Value =
            serde_json::from_str(&script("check.py", &[&path.display().to_string()]).await)
                .unwrap();
        let compared = compared.as_array().unwrap();
        assert_eq!(compared.len(), job["results"].as_array().unwrap().len());
        for result in compared {
            let readers = result["readers"].as_object().unwrap();
            let counts: Vec<_> = readers.values().filter_map(Value::as_i64).collect();
            assert!(counts.contains(&rows), "{result}");
            assert!(
                counts.iter().all(|&count| count == rows || count == 0),
                "{result}"
            );
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // A test that fails leaves its files to look at; the servers' folder goes as a whole.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Runs a script of `readback/` and gives what it printed.
async fn script(name: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/e2e/readback")
        .join(name);
    let mut all = vec!["-B".as_ref(), path.as_os_str()];
    all.extend(arguments.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    let python = support::server_env("ROWGATE_TEST_PYTHON");
    support::program::run(Path::new(&python), &all)
        .await
        .success()
}
