//! `stream`: rows to the standard output, each batch checked, and a loud end when they are not complete.

use std::{io::Write, time::Duration};

use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use tonic::Code;

use super::{
    Client, Failure, json,
    spec::SpecArgs,
    table::{aligned_line, csv_line, widths},
};
use crate::rpc::pb::{
    self, row_batch::Rows, stream_rows_request::Target, stream_rows_response::Event,
};

/// In a row, without a row between them.
const RETRIES_MAX: u32 = 8;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(8);

/// What ends an Arrow IPC stream.
const ARROW_END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

#[derive(Args, Debug)]
pub struct StreamArgs {
    /// Export whose spooled rows are wanted; without it, a live stream of --source and its like
    #[arg(value_name = "EXPORT_ID")]
    id: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// `json` is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: RowFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum RowFormat {
    #[default]
    Json,
    Table,
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

impl RowFormat {
    fn encoding(self) -> pb::RowEncoding {
        match self {
            Self::Json => pb::RowEncoding::JsonLines,
            Self::Table | Self::Csv => pb::RowEncoding::Values,
            Self::Arrow => pb::RowEncoding::ArrowIpc,
        }
    }
}

pub async fn stream(
    client: &mut Client,
    args: StreamArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let target = match (args.id, args.spec.is_given()) {
        (Some(id), false) => Target::ExportId(id),
        (None, true) => Target::Spec(args.spec.into_proto()?),
        _ => {
            return Err(Failure::Usage(
                "stream takes an EXPORT_ID, or --source or --json for a live stream".to_owned(),
            ));
        }
    };
    let request = pb::StreamRowsRequest {
        target: Some(target),
        encoding: args.output.encoding().into(),
        ..Default::default()
    };
    let mut reader = Reader {
        request,
        format: args.output,
        out,
        next_row: 0,
        widths: None,
        sha256: Sha256::new(),
        started: Started::No,
    };
    let mut retries = 0;
    loop {
        let before = reader.next_row;
        let failure = match reader.call(client).await {
            Ok(()) => return reader.end(),
            Err(failure) => failure,
        };
        retries = if reader.next_row > before {
            0
        } else {
            retries + 1
        };
        if retries >= RETRIES_MAX || !reader.can_go_on(&failure) {
            if reader.started == Started::Yes {
                eprintln!(
                    "the rows are NOT complete: {} arrived, no footer followed",
                    reader.next_row
                );
            }
            return Err(failure);
        }
        let delay = RETRY_DELAY_MIN * 2_u32.pow(retries);
        tokio::time::sleep(delay.min(RETRY_DELAY_MAX)).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Started {
    No,
    Yes,
}

struct Reader<'a> {
    request: pb::StreamRowsRequest,
    format: RowFormat,
    out: &'a mut (dyn Write + Send),
    /// The row that comes next, counted from 0.
    next_row: i64,
    /// Of the table's columns, set by the first batch.
    widths: Option<Vec<usize>>,
    /// Of this call's payloads.
    sha256: Sha256,
    started: Started,
}

impl Reader<'_> {
    /// One call, to its footer.
    async fn call(&mut self, client: &mut Client) -> Result<(), Failure> {
        self.sha256 = Sha256::new();
        let mut events = client.stream_rows(self.request.clone()).await?.into_inner();
        while let Some(event) = events.message().await? {
            let token = event.resume_token;
            match event.event {
                Some(Event::Header(header)) => self.header(&header)?,
                Some(Event::Batch(batch)) => self.batch(batch)?,
                Some(Event::Footer(footer)) => return self.footer(&footer),
                Some(Event::Heartbeat(_) | Event::Drain(_)) | None => {}
            }
            if !token.is_empty() {
                self.request.resume_token = token;
            }
        }
        Err(Failure::Damaged(
            "the stream ended without a footer: the rows are not complete".to_owned(),
        ))
    }

    /// Only tokens make it exact: a live stream would start again.
    fn can_go_on(&self, failure: &Failure) -> bool {
        let passes = match failure {
            Failure::Rpc(status) => {
                matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::Cancelled
                )
            }
            _ => false,
        };
        passes && !self.request.resume_token.is_empty()
    }

    fn header(&mut self, header: &pb::StreamHeader) -> Result<(), Failure> {
        if header.first_row != self.next_row {
            return Err(self.gap(header.first_row));
        }
        if self.started == Started::Yes {
            return Ok(());
        }
        self.started = Started::Yes;
        let names = header.schema.iter().map(|field| field.name.as_str());
        let written = match self.format {
            RowFormat::Json => Ok(()),
            RowFormat::Arrow => self.out.write_all(&header.arrow_schema),
            RowFormat::Csv => csv_line(self.out, names.map(Some)),
            RowFormat::Table => {
                self.widths = None;
                let names: Vec<_> = names.map(str::to_owned).collect();
                self.table_lines(vec![names])
            }
        };
        written.map_err(Failure::output("standard output"))
    }

    fn gap(&self, first_row: i64) -> Failure {
        Failure::Damaged(format!(
            "row {first_row} arrived where row {} comes next",
            self.next_row
        ))
    }

    fn batch(&mut self, batch: pb::RowBatch) -> Result<(), Failure> {
        if batch.first_row != self.next_row {
            return Err(self.gap(batch.first_row));
        }
        if batch.row_count == 0 {
            return Ok(());
        }
        let written = match batch.rows.unwrap_or(Rows::JsonLines(String::new())) {
            Rows::JsonLines(lines) => {
                self.check(lines.as_bytes(), batch.crc32c)?;
                self.out
                    .write_all(lines.as_bytes())
                    .and_then(|()| self.out.write_all(b"\n"))
            }
            Rows::ArrowIpc(bytes) => {
                self.check(&bytes, batch.crc32c)?;
                self.out.write_all(&bytes)
            }
            Rows::Values(values) => {
                let rows = values
                    .rows()
                    .map_err(|error| Failure::Damaged(format!("a batch can't be read: {error}")))?;
                let rows = rows
                    .iter()
                    .map(|row| row.values.iter().map(cell).collect())
                    .collect();
                self.value_lines(rows)
            }
        };
        written.map_err(Failure::output("standard output"))?;
        self.next_row += i64::from(batch.row_count);
        Ok(())
    }

    fn check(&mut self, payload: &[u8], crc: Option<u32>) -> Result<(), Failure> {
        self.sha256.update(payload);
        if crc.is_some_and(|crc| crc != crc32c::crc32c(payload)) {
            return Err(Failure::Damaged(format!(
                "the batch from row {} on fails its CRC-32C",
                self.next_row
            )));
        }
        Ok(())
    }

    fn value_lines(&mut self, rows: Vec<Vec<Option<String>>>) -> std::io::Result<()> {
        if self.format == RowFormat::Table {
            let shown = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default);
            return self.table_lines(rows.into_iter().map(|row| shown(row).collect()).collect());
        }
        for row in &rows {
            csv_line(self.out, row.iter().map(Option::as_deref))?;
        }
        Ok(())
    }

    /// Later rows may be wider than the first ones: a stream can't wait for them.
    fn table_lines(&mut self, rows: Vec<Vec<String>>) -> std::io::Result<()> {
        let first = rows.first().cloned().unwrap_or_default();
        let found = widths(&first, &rows);
        let widths = match &mut self.widths {
            Some(widths) => {
                for (width, found) in widths.iter_mut().zip(found) {
                    *width = (*width).max(found);
                }
                widths
            }
            none => none.insert(found),
        };
        for row in &rows {
            aligned_line(self.out, row.iter().map(String::as_str), widths)?;
        }
        Ok(())
    }

    fn footer(&mut self, footer: &pb::StreamFooter) -> Result<(), Failure> {
        if footer.rows != self.next_row {
            return Err(Failure::Damaged(format!(
                "{} rows arrived of {}",
                self.next_row, footer.rows
            )));
        }
        let found = hex::encode(self.sha256.finalize_reset());
        if !footer.sha256.is_empty() && footer.sha256 != found {
            return Err(Failure::Damaged(format!(
                "the rows' SHA-256 is {found}; the server says {}",
                footer.sha256
            )));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let ended = match self.format {
            RowFormat::Arrow => self.out.write_all(&ARROW_END),
            _ => Ok(()),
        };
        ended
            .and_then(|()| self.out.flush())
            .map_err(Failure::output("standard output"))
    }
}

/// `None` for NULL; what is no text is written as JSON.
fn cell(value: &prost_types::Value) -> Option<String> {
    match json::value(value) {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}
