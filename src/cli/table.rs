//! Tables on the standard output: for people, for csv readers, for jq.

use std::io::{self, Write};

use super::{Failure, OutputFormat};

pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Prints `table`, or `json` where that is asked for.
pub fn print(
    table: &Table,
    json: impl FnOnce() -> serde_json::Value,
    format: OutputFormat,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let printed = match format {
        OutputFormat::Json => writeln!(out, "{:#}", json()),
        OutputFormat::Csv => print_csv(table, out),
        OutputFormat::Table => print_aligned(table, out),
    };
    printed
        .and_then(|()| out.flush())
        .map_err(Failure::output("standard output"))
}

fn print_csv(table: &Table, out: &mut (dyn Write + Send)) -> io::Result<()> {
    csv_line(out, table.header.iter().copied().map(Some))?;
    for row in &table.rows {
        // What is not there has no text.
        csv_line(
            out,
            row.iter()
                .map(|cell| Some(cell.as_str()).filter(|cell| !cell.is_empty())),
        )?;
    }
    Ok(())
}

/// As the server's csv has it: nothing for what is not there, `""` for an empty text.
pub fn csv_line<'a>(
    out: &mut (dyn Write + Send),
    cells: impl Iterator<Item = Option<&'a str>>,
) -> io::Result<()> {
    for (i, cell) in cells.enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        let Some(cell) = cell else { continue };
        if cell.is_empty() || cell.contains(['"', ',', '\n', '\r']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

fn print_aligned(table: &Table, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let widths = widths(&table.header, &table.rows);
    aligned_line(out, table.header.iter().copied(), &widths)?;
    for row in &table.rows {
        aligned_line(out, row.iter().map(String::as_str), &widths)?;
    }
    Ok(())
}

/// Of each column, in characters, as printed.
pub fn widths(header: &[impl AsRef<str>], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<_> = header.iter().map(|cell| width(cell.as_ref())).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    widths
}

pub fn aligned_line<'a>(
    out: &mut (dyn Write + Send),
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
) -> io::Result<()> {
    let mut line = String::new();
    for (cell, widest) in cells.zip(widths) {
        line.push_str(&printable(cell));
        let pad = widest.saturating_sub(width(cell)) + 2;
        line.extend(std::iter::repeat_n(' ', pad));
    }
    writeln!(out, "{}", line.trim_end())
}

fn width(cell: &str) -> usize {
    printable(cell).chars().count()
}

/// Values and messages of others must not move the cursor or hide what is on the screen.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}
