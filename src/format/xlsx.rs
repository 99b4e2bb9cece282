//! Excel workbooks, written by rust_xlsxwriter in its constant-memory mode.
//!
//! Owns which cell a value becomes, what happens to values that Excel can't hold, and how rows are spread over sheets.
//! Refuses to know about zip and XML: the library writes both. It also can't share the work of one workbook among
//! threads, so `render` passes batches on and the assembler does everything.

mod book;
mod cells;
mod columns;
mod fidelity;
mod serial;
mod strings;

use std::{path::PathBuf, sync::Arc};

use arrow::array::RecordBatch;

use super::{
    Assembler, EncodeOptions, Encoder, Error, Payload, Render, Rendered, invalid, options as rules,
    text,
};
use crate::export::spec;
use book::Book;
use columns::Layout;

/// Rows of a sheet in Excel, the header included.
pub const SHEET_ROWS_MAX: u32 = 1_048_576;
/// Columns of a sheet in Excel.
pub const SHEET_COLUMNS_MAX: usize = 16_384;
/// UTF-16 units of a sheet's name in Excel.
pub(super) const SHEET_NAME_UNITS_MAX: usize = 31;
/// 7 % larger than level 6 on a table of orders, for less than half of the time.
const COMPRESSION_LEVEL: u8 = 3;

/// The encoder of one export.
#[derive(Clone, Debug)]
pub struct Xlsx {
    plan: Arc<Plan>,
}

/// What is the same for every sheet.
#[derive(Clone, Debug)]
struct Plan {
    layout: Layout,
    texts: Vec<text::Column>,
    sheet: String,
    compression_level: u8,
    overflow: spec::Overflow,
    sheet_rows_max: u32,
    scratch: PathBuf,
}

impl Xlsx {
    /// # Errors
    /// [`Error::Invalid`] for a sheet name that Excel refuses, a level that the library can't do, too many columns, a
    /// width or number format that would make Excel call the file damaged.
    pub fn new(format: &spec::Xlsx, options: EncodeOptions) -> Result<Self, Error> {
        let sheet = format.sheet.clone().unwrap_or_else(|| "Sheet1".to_owned());
        rules::sheet_name(&sheet).map_err(|wrong| invalid("spec.format.xlsx.sheet", wrong))?;
        let compression_level = format.compression_level.unwrap_or(COMPRESSION_LEVEL);
        rules::compression_level(compression_level.into())
            .map_err(|wrong| invalid("spec.format.xlsx.compression_level", wrong))?;
        let layout = Layout::new(&options.schema)?;
        let fields = options.schema.fields().iter();
        let texts = fields
            .map(|field| text::Column::compile(field, &options.time_zone))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            plan: Arc::new(Plan {
                layout,
                texts,
                sheet,
                compression_level,
                overflow: format.overflow,
                sheet_rows_max: SHEET_ROWS_MAX,
                scratch: options.scratch,
            }),
        })
    }

    /// Smaller sheets than Excel's, so that tests reach the next one. Below 2 there would be no room for a row.
    pub fn sheet_rows_max(self, rows_max: u32) -> Self {
        let mut plan = Arc::unwrap_or_clone(self.plan);
        plan.sheet_rows_max = rows_max.clamp(2, SHEET_ROWS_MAX);
        Self {
            plan: Arc::new(plan),
        }
    }
}

impl Render for Xlsx {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        Ok(Rendered {
            rows: batch.num_rows() as u64,
            payload: Payload::Batch(batch),
        })
    }
}

impl Encoder for Xlsx {
    fn media_type(&self) -> &'static str {
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    }

    fn extension(&self) -> &'static str {
        ".xlsx"
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        Ok(Box::new(Book::new(Arc::clone(&self.plan))))
    }
}
