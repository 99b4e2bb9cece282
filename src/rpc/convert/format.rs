//! File formats and their options.

use super::{
    check::Check,
    value::{int32, int64},
};
use crate::{
    export::spec::{
        ArrowIpc, Bom, Compression, Csv, Format, Formulas, Header, Jsonl, LineEnd, Overflow,
        Parquet, Xlsx,
    },
    format::options::{self as rules, ARROW_COMPRESSIONS, PARQUET_COMPRESSIONS, TEXT_COMPRESSIONS},
    rpc::pb::{self, format::Kind},
};

const NULL_TEXT_BYTES_MAX: usize = 64;

pub fn format_from_proto(check: &mut Check, field: &str, format: pb::Format) -> Option<Format> {
    let Some(kind) = format.kind else {
        check.refuse(
            field,
            "names no format; send one of csv, xlsx, jsonl, parquet and arrow, or leave format unset for rows",
        );
        return None;
    };
    Some(match kind {
        Kind::Csv(csv) => Format::Csv(csv_from_proto(check, &format!("{field}.csv"), csv)),
        Kind::Xlsx(xlsx) => Format::Xlsx(xlsx_from_proto(check, &format!("{field}.xlsx"), xlsx)),
        Kind::Jsonl(jsonl) => Format::Jsonl(Jsonl {
            compression: compression(
                check,
                &format!("{field}.jsonl"),
                jsonl.compression,
                TEXT_COMPRESSIONS,
            )
            .unwrap_or_default(),
        }),
        Kind::Parquet(parquet) => {
            let field = format!("{field}.parquet");
            let rows_field = format!("{field}.row_group_rows");
            let right = "send 0 for the server's choice, or a positive number of rows";
            let row_group_rows = check.not_negative(&rows_field, parquet.row_group_rows, right);
            if let Some(rows) = row_group_rows {
                follow(check, rows_field, rules::row_group_rows(rows));
            }
            Format::Parquet(Parquet {
                compression: compression(check, &field, parquet.compression, PARQUET_COMPRESSIONS),
                row_group_rows,
            })
        }
        Kind::Arrow(arrow) => Format::Arrow(ArrowIpc {
            compression: compression(
                check,
                &format!("{field}.arrow"),
                arrow.compression,
                ARROW_COMPRESSIONS,
            )
            .unwrap_or_default(),
        }),
    })
}

fn csv_from_proto(check: &mut Check, field: &str, csv: pb::Csv) -> Csv {
    let delimiter = delimiter(check, &format!("{field}.delimiter"), &csv.delimiter);
    let null_field = format!("{field}.null_text");
    let null_text = check.text(&null_field, csv.null_text, NULL_TEXT_BYTES_MAX);
    follow(check, null_field, rules::null_text(&null_text, delimiter));
    Csv {
        delimiter,
        header: if csv.no_header {
            Header::Omitted
        } else {
            Header::Written
        },
        bom: if csv.bom { Bom::Written } else { Bom::Absent },
        null_text,
        formulas: if csv.guard_formulas {
            Formulas::Guarded
        } else {
            Formulas::AsTheyAre
        },
        line_end: if csv.crlf { LineEnd::CrLf } else { LineEnd::Lf },
        compression: compression(check, field, csv.compression, TEXT_COMPRESSIONS)
            .unwrap_or_default(),
    }
}

fn delimiter(check: &mut Check, field: &str, text: &str) -> u8 {
    let byte = match text.as_bytes() {
        [] => b',',
        [byte] => *byte,
        // No character that a csv file could have here.
        _ => 0,
    };
    follow(check, field, rules::delimiter(byte));
    byte
}

fn follow(check: &mut Check, field: impl Into<String>, rule: Result<(), String>) {
    if let Err(wrong) = rule {
        check.refuse(field, wrong);
    }
}

fn xlsx_from_proto(check: &mut Check, field: &str, xlsx: pb::Xlsx) -> Xlsx {
    let sheet = (!xlsx.sheet.is_empty()).then_some(xlsx.sheet);
    if let Some(name) = &sheet {
        follow(check, format!("{field}.sheet"), rules::sheet_name(name));
    }
    let compression_level = xlsx.compression_level.map(|level| {
        let level_field = format!("{field}.compression_level");
        follow(check, level_field, rules::compression_level(level));
        u8::try_from(level).unwrap_or_default()
    });
    let right = "OVERFLOW_TEXT or OVERFLOW_ERROR";
    let overflow = check.choice(&format!("{field}.overflow"), xlsx.overflow, right);
    if xlsx.plain {
        check.refuse(
            format!("{field}.plain"),
            "is not supported by this version; leave it unset",
        );
    }
    Xlsx {
        sheet,
        compression_level,
        overflow: match overflow {
            Some(pb::Overflow::Error) => Overflow::Error,
            Some(pb::Overflow::Text | pb::Overflow::Unspecified) | None => Overflow::Text,
        },
    }
}

/// `None` when unspecified.
fn compression(
    check: &mut Check,
    field: &str,
    number: i32,
    allowed: &[Compression],
) -> Option<Compression> {
    let names: Vec<_> = allowed
        .iter()
        .map(|c| compression_number(*c).as_str_name())
        .collect();
    let names = names.join(", ");
    let field = format!("{field}.compression");
    let chosen = match check.choice(&field, number, &names)? {
        pb::Compression::Unspecified => return None,
        pb::Compression::None => Compression::None,
        pb::Compression::Gzip => Compression::Gzip,
        pb::Compression::Zstd => Compression::Zstd,
        pb::Compression::Snappy => Compression::Snappy,
        pb::Compression::Lz4 => Compression::Lz4,
    };
    if !allowed.contains(&chosen) {
        check.refuse(
            field,
            format!("does not go with this format; send one of {names}"),
        );
    }
    Some(chosen)
}

pub fn format_to_proto(format: &Format) -> pb::Format {
    let compression = |compression| compression_number(compression).into();
    let kind = match format {
        Format::Csv(csv) => Kind::Csv(pb::Csv {
            delimiter: char::from(csv.delimiter).to_string(),
            no_header: csv.header == Header::Omitted,
            bom: csv.bom == Bom::Written,
            null_text: csv.null_text.clone(),
            guard_formulas: csv.formulas == Formulas::Guarded,
            crlf: csv.line_end == LineEnd::CrLf,
            compression: compression(csv.compression),
        }),
        Format::Xlsx(xlsx) => Kind::Xlsx(pb::Xlsx {
            sheet: xlsx.sheet.clone().unwrap_or_default(),
            compression_level: xlsx.compression_level.map(|level| int32(level.into())),
            overflow: match xlsx.overflow {
                Overflow::Text => pb::Overflow::Text,
                Overflow::Error => pb::Overflow::Error,
            }
            .into(),
            plain: false,
        }),
        Format::Jsonl(jsonl) => Kind::Jsonl(pb::JsonLines {
            compression: compression(jsonl.compression),
        }),
        Format::Parquet(parquet) => Kind::Parquet(pb::Parquet {
            compression: parquet.compression.map_or(0, compression),
            row_group_rows: parquet.row_group_rows.map_or(0, int64),
        }),
        Format::Arrow(arrow) => Kind::Arrow(pb::ArrowIpc {
            compression: compression(arrow.compression),
        }),
    };
    pb::Format { kind: Some(kind) }
}

fn compression_number(compression: Compression) -> pb::Compression {
    match compression {
        Compression::None => pb::Compression::None,
        Compression::Gzip => pb::Compression::Gzip,
        Compression::Zstd => pb::Compression::Zstd,
        Compression::Snappy => pb::Compression::Snappy,
        Compression::Lz4 => pb::Compression::Lz4,
    }
}
