//! A client of `StreamRows` that only counts: what the service can send, without the cost of using it.
//!
//! ```text
//! count_rows http://127.0.0.1:50051 SOURCE TABLE values|arrow|json [SECONDS_TO_PAUSE]
//! ```
//! With a pause it stops reading after the first batch for that long, then goes on: memory on the server must not grow.
//! Prints `rows bytes seconds`; fails when the footer does not come, or counts other rows.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rowgate::rpc::pb::{
    self, export_service_client::ExportServiceClient, row_batch::Rows, stream_rows_request::Target,
    stream_rows_response::Event,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [server, source, table, encoding, pause @ ..] = words.as_slice() else {
        bail!("count_rows SERVER SOURCE TABLE values|arrow|json [SECONDS_TO_PAUSE]");
    };
    let pause = pause.first().map(|seconds| seconds.parse()).transpose()?;
    let encoding = match encoding.as_str() {
        "values" => pb::RowEncoding::Values,
        "arrow" => pb::RowEncoding::ArrowIpc,
        "json" => pb::RowEncoding::JsonLines,
        other => bail!("{other}: values, arrow or json"),
    };
    let mut client = ExportServiceClient::connect(server.clone()).await?;
    let started = Instant::now();
    let mut events = client
        .stream_rows(pb::StreamRowsRequest {
            target: Some(Target::Spec(pb::ExportSpec {
                source: source.clone(),
                from: Some(pb::export_spec::From::Table(pb::TableRead {
                    name: table.clone(),
                    ..Default::default()
                })),
                ..Default::default()
            })),
            encoding: encoding.into(),
            ..Default::default()
        })
        .await?
        .into_inner();
    let (mut rows, mut bytes, mut pause) = (0_i64, 0, pause.map(Duration::from_secs));
    let mut footer = None;
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Batch(batch)) => {
                rows += i64::from(batch.row_count);
                bytes += match batch.rows {
                    Some(Rows::Values(values)) => values.wire.len(),
                    Some(Rows::ArrowIpc(batch)) => batch.len(),
                    Some(Rows::JsonLines(lines)) => lines.len(),
                    None => 0,
                };
                if let Some(pause) = pause.take() {
                    tokio::time::sleep(pause).await;
                }
            }
            Some(Event::Footer(end)) => footer = Some(end),
            _ => {}
        }
    }
    let footer = footer.context("the stream ended without a footer: it is not complete")?;
    ensure!(
        footer.rows == rows,
        "{rows} rows came, the footer says {}",
        footer.rows
    );
    println!("{rows} {bytes} {:.3}", started.elapsed().as_secs_f64());
    Ok(())
}
