//! The end of a pipeline that is a file: assembled in order, uploaded as parts fill.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering},
};

use tokio_util::sync::CancellationToken;

use crate::{
    export::Failure,
    format::{self, Assembler, Rendered},
    storage::{self, Upload},
};

use super::{Ends, Meter, Sink, Written};

pub struct FileSink {
    assembler: Box<dyn Assembler>,
    out: Metered,
    rows: u64,
}

impl FileSink {
    pub fn new(assembler: Box<dyn Assembler>, upload: Upload, meter: Arc<Meter>) -> Self {
        Self {
            assembler,
            out: Metered {
                upload,
                meter,
                stop: CancellationToken::new(),
            },
            rows: 0,
        }
    }
}

impl Sink for FileSink {
    fn start(&mut self, ends: Ends) -> Result<(), Failure> {
        self.out.stop = ends.stop;
        self.assembler.start(&mut self.out).map_err(into_failure)
    }

    fn push(&mut self, rendered: Rendered) -> Result<(), Failure> {
        let rows_before = self.rows;
        self.rows += rendered.rows;
        self.assembler
            .push(rendered, &mut self.out)
            .map_err(|error| into_failure(error.after_rows(rows_before)))
    }

    fn finish(self: Box<Self>) -> Result<Written, Failure> {
        let mut out = self.out;
        let assembled = self.assembler.finish(&mut out).map_err(into_failure)?;
        let stored = out.upload.finish().map_err(storage::Error::into_failure)?;
        Ok(Written {
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
            path: stored.path,
            sheets: assembled.sheets,
            fidelity: assembled.fidelity,
        })
    }
}

/// Counts what goes out, for progress.
struct Metered {
    upload: Upload,
    meter: Arc<Meter>,
    /// Ends a long assembly in its middle.
    stop: CancellationToken,
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the export was stopped"));
        }
        let count = self.upload.write(bytes)?;
        self.meter
            .bytes_written
            .fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.upload.flush()
    }
}

/// The storage's own error travels inside an `io::Error` through assemblers that know only `Write`.
fn into_failure(error: format::Error) -> Failure {
    match error {
        format::Error::Io(error) => match error.downcast::<storage::Error>() {
            Ok(error) => error.into_failure(),
            Err(error) => storage::Error::from(error).into_failure(),
        },
        error => error.into_failure(),
    }
}
