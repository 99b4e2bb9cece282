//! From a call to a file and to a stream of rows.

use rowgate::rpc::pb::{self, row_batch, stream_rows_response::Event};

use crate::support::rowgate::Rowgate;

const SHOP: &str = r#"
[sources.shop]
url = "sqlite://{folder}/shop.db"
allow_tables = ["orders"]
allow_sql = true
"#;

async fn shop() -> Rowgate {
    let held = crate::support::temp_dir();
    let folder = held.keep();
    let db = rusqlite::Connection::open(folder.join("shop.db")).unwrap();
    db.execute_batch(
        "create table orders(id integer primary key, name text not null, amount real);
         insert into orders with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000)
         select i, 'customer ' || i, i * 0.5 from n;",
    )
    .unwrap();
    Rowgate::start_in(folder, SHOP).await
}

fn table(format: Option<pb::Format>) -> pb::ExportSpec {
    pb::ExportSpec {
        source: "shop".to_owned(),
        from: Some(pb::export_spec::From::Table(pb::TableRead {
            name: "orders".to_owned(),
            order_by: vec!["id".to_owned()],
            limit: 0,
        })),
        format,
        ..Default::default()
    }
}

fn csv() -> pb::Format {
    pb::Format {
        kind: Some(pb::format::Kind::Csv(pb::Csv::default())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_export_runs_inline_and_is_downloaded() {
    let mut rowgate = shop().await;
    let response = rowgate
        .exports
        .submit_export(pb::SubmitExportRequest {
            spec: Some(table(Some(csv()))),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let export = response.export.unwrap();
    assert_eq!(export.state(), pb::State::Succeeded, "{export:?}");
    let result = export.result.unwrap();
    assert_eq!(result.rows, 10_000);
    let mut download = rowgate
        .exports
        .download_result(pb::DownloadResultRequest {
            export_id: export.id,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = download.message().await.unwrap() {
        bytes.extend_from_slice(&piece.data);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("id,name,amount\n1,customer 1,0.5\n"),
        "{}",
        &text[..80]
    );
    assert_eq!(text.lines().count(), 10_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_brings_every_row_and_a_footer() {
    let mut rowgate = shop().await;
    let mut stream = rowgate
        .exports
        .stream_rows(pb::StreamRowsRequest {
            target: Some(pb::stream_rows_request::Target::Spec(table(None))),
            encoding: pb::RowEncoding::JsonLines.into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let (mut rows, mut footer) = (0, None);
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Batch(batch) => {
                assert_eq!(batch.first_row, rows);
                rows += i64::from(batch.row_count);
                let Some(row_batch::Rows::JsonLines(lines)) = batch.rows else {
                    panic!("another encoding");
                };
                assert_eq!(lines.lines().count() as i32, batch.row_count);
            }
            Event::Footer(end) => footer = Some(end),
            _ => {}
        }
    }
    assert_eq!(rows, 10_000);
    assert_eq!(footer.unwrap().rows, 10_000);
}
