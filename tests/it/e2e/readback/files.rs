//! Files of five formats from three databases, and the options that change what a reader sees.

use rowgate::rpc::pb::{self, format::Kind as Of};
use serde_json::{Value, json};

use super::{
    Kind, Shop,
    client::{format, orders},
    streams::ENCODINGS,
};

pub const EXTENSIONS: [&str; 5] = ["csv", "jsonl", "xlsx", "parquet", "arrow"];

pub fn plain(extension: &str) -> Of {
    match extension {
        "csv" => Of::Csv(pb::Csv::default()),
        "jsonl" => Of::Jsonl(pb::JsonLines::default()),
        "xlsx" => Of::Xlsx(pb::Xlsx::default()),
        "parquet" => Of::Parquet(pb::Parquet::default()),
        _ => Of::Arrow(pb::ArrowIpc::default()),
    }
}

/// All five formats of the whole table, and the three encodings of a live stream.
async fn all_formats(kind: Kind) {
    let mut shop = Shop::open(kind).await;
    let mut results = Vec::new();
    for extension in EXTENSIONS {
        let spec = orders(format(plain(extension)));
        results.push(shop.file(spec, extension, json!({})).await);
    }
    for encoding in ENCODINGS {
        results.push(shop.live(orders(None), encoding).await);
    }
    let rows = rows(&shop).await;
    shop.check(
        &json!({"source": shop.source(), "columns": shop.columns(), "results": results}),
        rows,
    )
    .await;
}

/// The rows of the table: those of `benches/orders.sql`, and extremes.
pub async fn rows(shop: &Shop) -> i64 {
    let code = "import json, sys; sys.path.insert(0, sys.argv[1]); import reference; \
        print(len(list(reference.rows(json.loads(sys.argv[2]), [{'name': 'id', 'kind': 'int'}]))))";
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/e2e/readback");
    let source = shop.source().to_string();
    let said = crate::support::python(code, &[folder, &source])
        .await
        .success();
    let rows = said.trim().parse().unwrap();
    assert!(rows > i64::from(super::ROWS) + 80, "{rows} rows");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_and_streams_from_postgres_equal_the_table() {
    all_formats(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_and_streams_from_mariadb_equal_the_table() {
    all_formats(Kind::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_and_streams_from_sqlite_equal_the_table() {
    all_formats(Kind::Sqlite).await;
}

fn csv(options: &Value) -> Of {
    let text = |name: &str| options[name].as_str().unwrap_or_default().to_owned();
    let flag = |name: &str| options[name].as_bool().unwrap_or_default();
    Of::Csv(pb::Csv {
        delimiter: text("delimiter"),
        no_header: flag("no_header"),
        bom: flag("bom"),
        null_text: text("null_text"),
        guard_formulas: flag("guard_formulas"),
        crlf: flag("crlf"),
        compression: compression(options),
    })
}

fn compression(options: &Value) -> i32 {
    use pb::Compression as C;
    let named = match options["compression"].as_str() {
        None => C::Unspecified,
        Some("none") => C::None,
        Some("gzip") => C::Gzip,
        Some("zstd") => C::Zstd,
        Some("snappy") => C::Snappy,
        Some("lz4") => C::Lz4,
        Some(other) => panic!("{other}"),
    };
    named.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn options_change_what_they_say_and_nothing_else() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let mut results = Vec::new();
    for options in [
        json!({"delimiter": ";", "crlf": true, "bom": true, "null_text": "NULL"}),
        json!({"delimiter": "\t", "null_text": "\\N", "guard_formulas": true, "compression": "gzip"}),
        json!({"delimiter": "1", "null_text": "null", "compression": "zstd", "crlf": true}),
        json!({"delimiter": "-", "no_header": true}),
        json!({"delimiter": "|", "bom": true, "compression": "gzip"}),
    ] {
        let spec = orders(format(csv(&options)));
        results.push(shop.file(spec, "csv", options).await);
    }
    for compression_name in ["gzip", "zstd", "none"] {
        let options = json!({"compression": compression_name});
        let compression = compression(&options);
        let jsonl = Of::Jsonl(pb::JsonLines { compression });
        results.push(shop.file(orders(format(jsonl)), "jsonl", options).await);
    }
    for compression_name in ["none", "gzip", "zstd", "snappy", "lz4"] {
        let options = json!({"compression": compression_name});
        let parquet = Of::Parquet(pb::Parquet {
            compression: compression(&options),
            row_group_rows: 777,
        });
        results.push(shop.file(orders(format(parquet)), "parquet", options).await);
    }
    for compression_name in ["none", "zstd", "lz4"] {
        let options = json!({"compression": compression_name});
        let compression = compression(&options);
        let arrow = Of::Arrow(pb::ArrowIpc { compression });
        results.push(shop.file(orders(format(arrow)), "arrow", options).await);
    }
    let xlsx = Of::Xlsx(pb::Xlsx {
        sheet: "Bestellungen & 订单".to_owned(),
        compression_level: Some(9),
        ..Default::default()
    });
    let options = json!({"sheet": "Bestellungen & 订单"});
    results.push(shop.file(orders(format(xlsx)), "xlsx", options).await);
    let rows = rows(&shop).await;
    shop.check(
        &json!({"source": shop.source(), "columns": shop.columns(), "results": results}),
        rows,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_zone_shows_in_text_and_sheets_and_changes_no_instant() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let rows = rows(&shop).await;
    for zone in ["Europe/Berlin", "Asia/Shanghai", "America/St_Johns"] {
        let mut results = Vec::new();
        for extension in EXTENSIONS {
            let spec = pb::ExportSpec {
                time_zone: zone.to_owned(),
                ..orders(format(plain(extension)))
            };
            results.push(shop.file(spec, extension, json!({})).await);
        }
        let columns = shop.columns();
        shop.check(
            &json!({"source": shop.source(), "columns": columns, "zone": zone, "results": results}),
            rows,
        )
        .await;
    }
}

fn column(name: &str, expression: &str, header: &str) -> pb::Column {
    pb::Column {
        name: name.to_owned(),
        expression: expression.to_owned(),
        header: header.to_owned(),
        ..Default::default()
    }
}

/// The same selection in our expressions and in the database's own SQL.
#[tokio::test(flavor = "multi_thread")]
async fn columns_filter_and_mask_equal_the_databases_own_sql() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let masked = "case when email like '_@%' then '*' || substr(email, 2) else left(email, 1) \
        || repeat('*', position('@' in email) - 2) || substr(email, position('@' in email)) end";
    let source = json!({
        "kind": "postgres", "url": shop.url, "table": "orders", "order": "id",
        "where": "status in (1, 2) and (note like 'note%' or discount > 0.5)",
    });
    let columns = json!([
        {"name": "note", "kind": "text"},
        {"name": "id", "kind": "int"},
        {"name": "double_amount", "kind": "decimal:2", "sql": "amount * 2"},
        {"name": "masked", "kind": "text", "sql": masked},
        {"name": "what", "kind": "text", "sql": "case status when 1 then 'paid' else 'new ''' || upper(order_no) end"},
        {"name": "day", "kind": "date", "sql": "ship_date"},
    ]);
    let mut results = Vec::new();
    for extension in EXTENSIONS {
        let spec = pb::ExportSpec {
            columns: vec![
                column("note", "", "Note, \"quoted\""),
                column("id", "", ""),
                column("double_amount", "amount * 2", "=Amount × 2"),
                column("masked", "mask_email(email)", "E-Mail"),
                column(
                    "what",
                    "case status when 1 then 'paid' else 'new ''' || upper(order_no) end",
                    "Was",
                ),
                column("day", "ship_date", "发货日期"),
            ],
            filter: "status in (1, 2) and (note like 'note%' or discount > 0.5)".to_owned(),
            ..orders(format(plain(extension)))
        };
        results.push(shop.file(spec, extension, json!({})).await);
    }
    let count = format!(
        "select count(*) from orders where {}",
        source["where"].as_str().unwrap()
    );
    let pool = sqlx::PgPool::connect(&shop.url).await.unwrap();
    let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(count > 100, "{count} rows");
    shop.check(
        &json!({"source": source, "columns": columns, "results": results}),
        count,
    )
    .await;
}
