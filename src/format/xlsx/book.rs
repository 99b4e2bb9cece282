//! The assembler: one workbook, sheet after sheet, row after row.
//!
//! In constant memory the library keeps the row that is being written and puts finished ones into an unlinked
//! temporary file for each sheet; only `finish` compresses them.

use std::{
    any::Any,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use arrow::array::RecordBatch;
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};

use super::{
    Plan, SHEET_NAME_UNITS_MAX,
    cells::{self, Cell},
    fidelity::{Ledger, Treatment},
    strings::{self, Fitted},
};
use crate::format::{Assembled, Assembler, Error, Payload, Rendered, text};

/// What the zip library hands over at once is up to 32 KiB; fewer, larger pieces cost fewer wake-ups.
const CHUNK_BYTES: usize = 256 * 1024;
/// Enough that compression goes on while the storage takes the last chunk.
const CHUNKS_QUEUED: usize = 4;
/// XML around a cell's value: `<c r="XFD1048576" s="99" t="inlineStr"><is><t xml:space="preserve">...`.
const CELL_XML_BYTES: u64 = 96;
/// `1e-300` is written with all of its zeros.
const NUMBER_XML_BYTES: u64 = 350;
/// A sheet over 4 GiB needs zip64, which some readers don't know; so only such sheets get it.
const PLAIN_ZIP_BYTES_MAX: u64 = u32::MAX as u64;

pub(super) struct Book {
    plan: Arc<Plan>,
    workbook: Workbook,
    ledger: Ledger,
    sheets: usize,
    /// Where the next row goes in the last sheet.
    row_next: u32,
    /// At most the XML of the last sheet, and of the largest.
    sheet_bytes: u64,
    sheet_bytes_largest: u64,
    scratch: Vec<u8>,
}

impl Book {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        let mut workbook = Workbook::new();
        workbook.set_zip_compression_level(plan.compression_level);
        let names = plan.layout.columns.iter().map(|column| column.name.clone());
        Self {
            ledger: Ledger::new(plan.overflow, names),
            plan,
            workbook,
            sheets: 0,
            row_next: 0,
            sheet_bytes: 0,
            sheet_bytes_largest: 0,
            scratch: Vec::new(),
        }
    }

    fn open_sheet(&mut self) -> Result<(), Error> {
        let name = sheet_name(&self.plan.sheet, self.sheets);
        let sheet = self
            .workbook
            .add_worksheet_with_constant_memory()
            .map_err(translated)?;
        prepare(sheet, &name, &self.plan).map_err(translated)?;
        self.sheets += 1;
        self.row_next = 1;
        self.sheet_bytes = 0;
        Ok(())
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let plan = Arc::clone(&self.plan);
        let columns = plan.texts.iter().zip(batch.columns());
        let mut columns = columns
            .map(|(column, array)| column.bind(array))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            if self.row_next >= self.plan.sheet_rows_max {
                self.open_sheet()?;
            }
            self.write_row(&mut columns, row)?;
        }
        Ok(())
    }

    fn write_row(&mut self, columns: &mut [text::Cells<'_>], row: usize) -> Result<(), Error> {
        let sheet = self
            .workbook
            .worksheet_from_index(self.sheets - 1)
            .map_err(translated)?;
        for (index, cells) in columns.iter_mut().enumerate() {
            let (cell, treatment) = cells::cell(cells, row, &mut self.scratch);
            if let Some(treatment) = treatment {
                self.ledger.note(row, index, treatment)?;
            }
            let at = (self.row_next, index as u16);
            let written = match cell {
                Cell::Blank => continue,
                Cell::Number(number) => sheet.write_number(at.0, at.1, number),
                Cell::Boolean(value) => sheet.write_boolean(at.0, at.1, value),
                Cell::Text(text) => {
                    let fit = strings::fit(text);
                    if fit.cut {
                        self.ledger.note(row, index, Treatment::TextCut)?;
                    }
                    if fit.controls {
                        self.ledger.note(row, index, Treatment::ControlEscaped)?;
                    }
                    self.sheet_bytes += strings::xml_bytes_max(text);
                    write_text(sheet, at, &fit.text, None)
                }
            };
            written.map_err(translated)?;
            self.sheet_bytes += match cell {
                Cell::Number(number) if !(1e-5..1e17).contains(&number.abs()) => NUMBER_XML_BYTES,
                _ => CELL_XML_BYTES,
            };
        }
        self.sheet_bytes += CELL_XML_BYTES;
        self.sheet_bytes_largest = self.sheet_bytes_largest.max(self.sheet_bytes);
        self.row_next += 1;
        Ok(())
    }
}

impl Assembler for Book {
    fn start(&mut self, _out: &mut dyn Write) -> Result<(), Error> {
        guarded(|| {
            let scratch = &self.plan.scratch;
            std::fs::create_dir_all(scratch)?;
            self.workbook.set_tempdir(scratch).map_err(translated)?;
            self.open_sheet()
        })
    }

    fn push(&mut self, rendered: Rendered, _out: &mut dyn Write) -> Result<(), Error> {
        let Payload::Batch(batch) = rendered.payload else {
            return Err(Error::Broken("xlsx was given no batch".to_owned()));
        };
        guarded(|| self.write_batch(&batch))
    }

    fn finish(mut self: Box<Self>, out: &mut dyn Write) -> Result<Assembled, Error> {
        if self.sheet_bytes_largest > PLAIN_ZIP_BYTES_MAX {
            self.workbook.use_zip_large_file(true);
        }
        save(&mut self.workbook, out)?;
        Ok(Assembled {
            sheets: self.sheets as u32,
            fidelity: self.ledger.report(),
        })
    }
}

/// Title row, frozen; widths and number formats of the columns.
fn prepare(sheet: &mut Worksheet, name: &str, plan: &Plan) -> Result<(), XlsxError> {
    sheet.set_name(name)?.set_freeze_panes(1, 0)?;
    for (index, column) in plan.layout.columns.iter().enumerate() {
        let index = index as u16;
        sheet.set_column_width(index, column.width)?;
        if let Some(format) = &column.format {
            sheet.set_column_format(index, format)?;
        }
    }
    for (index, column) in plan.layout.columns.iter().enumerate() {
        let title = strings::fit(&column.title).text;
        write_text(
            sheet,
            (0, index as u16),
            &title,
            Some(&plan.layout.title_format),
        )?;
    }
    Ok(())
}

/// Always a string: what starts with `=` is no formula, what looks like an address no link.
fn write_text<'s>(
    sheet: &'s mut Worksheet,
    (row, column): (u32, u16),
    text: &Fitted<'_>,
    format: Option<&Format>,
) -> Result<&'s mut Worksheet, XlsxError> {
    match (text, format) {
        (Fitted::Plain(text), None) => sheet.write_string(row, column, *text),
        (Fitted::Plain(text), Some(format)) => {
            sheet.write_string_with_format(row, column, *text, format)
        }
        // of all ways to write a string only this one doesn't escape `_xHHHH_`
        (Fitted::Escaped(text), None) => {
            sheet.write_rich_string(row, column, &[(&Format::default(), text.as_str())])
        }
        (Fitted::Escaped(text), Some(format)) => sheet.write_rich_string_with_format(
            row,
            column,
            &[(&Format::default(), text.as_str())],
            format,
        ),
    }
}

/// `Orders`, `Orders (2)`, `Orders (3)`; a long name is cut, so that the number fits.
fn sheet_name(base: &str, index: usize) -> String {
    if index == 0 {
        return base.to_owned();
    }
    let numbered = |number: usize| {
        let suffix = format!(" ({number})");
        let start = strings::cut(base, SHEET_NAME_UNITS_MAX - suffix.len());
        format!("{start}{suffix}")
    };
    // a name that ends in ` (7)` itself and is cut just there would come twice
    let taken = (2..index + 2).find(|number| numbered(*number).eq_ignore_ascii_case(base));
    match taken {
        Some(taken) if taken <= index + 1 => numbered(index + 2),
        _ => numbered(index + 1),
    }
}

/// The library wants a writer that may move between threads, which `out` may not. So it gets a thread of its own and
/// a bounded channel; compression then overlaps with what the storage does.
fn save(workbook: &mut Workbook, out: &mut dyn Write) -> Result<(), Error> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(CHUNKS_QUEUED);
    thread::scope(|scope| {
        let saving = thread::Builder::new()
            .name("xlsx".to_owned())
            .spawn_scoped(scope, move || {
                let mut chunks = Chunks {
                    sender,
                    chunk: Vec::new(),
                };
                workbook.save_to_writer(&mut chunks).map_err(translated)?;
                chunks.flush().map_err(Error::Io)
            })?;
        let copied = receiver.iter().try_for_each(|chunk| out.write_all(&chunk));
        // a sink that failed also stops the other side, whose next chunk finds nobody
        drop(receiver);
        let saved = saving.join().unwrap_or_else(|panic| Err(panicked(&*panic)));
        copied?;
        saved
    })
}

struct Chunks {
    sender: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        self.sender
            .send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The library panics when its temporary file can't be written. Nothing of the workbook is used after an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// `Couldn't write to xml file: Os { code: 28, kind: StorageFull, message: "No space left on device" }`.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("rust_xlsxwriter panicked");
    let code = text
        .split_once("Os { code: ")
        .and_then(|(_, rest)| rest.split_once(','))
        .and_then(|(code, _)| code.parse().ok());
    match code {
        Some(code) => Error::Io(io::Error::from_raw_os_error(code)),
        None => Error::Broken(text.to_owned()),
    }
}

fn translated(error: XlsxError) -> Error {
    match error {
        XlsxError::IoError(error) | XlsxError::TempFileError(_, error) => Error::Io(error),
        other => Error::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheet_names_are_unique_and_fit() {
        assert_eq!(sheet_name("Sheet1", 0), "Sheet1");
        assert_eq!(sheet_name("Sheet1", 1), "Sheet1 (2)");
        assert_eq!(sheet_name("Sheet1", 11), "Sheet1 (12)");
        let long = "a".repeat(31);
        assert_eq!(sheet_name(&long, 1), format!("{} (2)", "a".repeat(27)));
        let tricky = format!("{} (2)", "a".repeat(27));
        let names: std::collections::HashSet<_> =
            (0..200).map(|index| sheet_name(&tricky, index)).collect();
        assert_eq!(names.len(), 200);
        let wide = "😀".repeat(15);
        assert!(sheet_name(&wide, 9).encode_utf16().count() <= 31);
    }

    #[test]
    fn a_panic_of_the_library_becomes_the_io_error_behind_it() {
        let failed = guarded::<()>(|| {
            let error = io::Error::from_raw_os_error(28);
            panic!("Couldn't write to xml file: {error:?}")
        });
        assert!(
            matches!(failed, Err(Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull)
        );
    }
}
