//! Which functions expressions may call: an explicit list, all of them immutable and of bounded cost.

mod at_zone;
mod guarded;
mod mask;
mod texts;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use datafusion_expr::{ColumnarValue, ScalarUDF};
use datafusion_functions::{core, datetime, math, regex, string, unicode};

use self::guarded::{Size, bounded, finite, of_finite_times};
pub(super) use self::texts::Texts;
use super::{expression::ROWS_AT_ONCE, names};

/// What one function may make for one batch of rows: larger than any batch should be, far below what a process has.
pub(super) const RESULT_BYTES_MAX: usize = 64 << 20;
/// What a constant may take: in every row of a batch it is as large as any result may be.
pub(super) const CONSTANT_BYTES_MAX: usize = RESULT_BYTES_MAX / ROWS_AT_ONCE;

/// How many rows a result of `args` may come to fill: one of nothing but constants is computed once, and then stands in
/// every row.
pub(super) fn rows_to_fill(args: &[ColumnarValue], rows: usize) -> usize {
    let is_constant = |arg: &ColumnarValue| matches!(arg, ColumnarValue::Scalar(_));
    match args.iter().all(is_constant) {
        true => rows.max(ROWS_AT_ONCE),
        false => rows,
    }
}

struct Available {
    function: Arc<ScalarUDF>,
    /// As documentation and messages show it.
    usage: &'static str,
}

/// By name and alias, lower case.
static AVAILABLE: LazyLock<BTreeMap<String, Arc<Available>>> = LazyLock::new(|| {
    let mut available = BTreeMap::new();
    for (function, usage) in text().into_iter().chain(numbers()).chain(others()) {
        let mut names = function.aliases().to_vec();
        names.push(function.name().to_owned());
        let entry = Arc::new(Available { function, usage });
        for name in names {
            available.insert(name, entry.clone());
        }
    }
    available
});

/// What a caller may try, and why it is not here.
const REFUSED: [(&[&str], &str); 4] = [
    (
        &[
            "count",
            "sum",
            "avg",
            "min",
            "max",
            "string_agg",
            "array_agg",
            "stddev",
            "median",
            "bool_and",
            "bool_or",
        ],
        "is an aggregate: an expression sees one row at a time; aggregate in the query",
    ),
    (
        &[
            "row_number",
            "rank",
            "dense_rank",
            "lag",
            "lead",
            "first_value",
            "last_value",
            "ntile",
        ],
        "is a window function: an expression sees one row at a time; use it in the query",
    ),
    (
        &[
            "now",
            "current_date",
            "current_time",
            "current_timestamp",
            "localtime",
            "localtimestamp",
            "today",
            "clock_timestamp",
        ],
        "gives another value each time, so that a retried export would differ; write the moment as a literal",
    ),
    (
        &["random", "rand", "uuid", "gen_random_uuid"],
        "gives another value each time, so that a retried export would differ",
    ),
];

pub(super) fn find(name: &str) -> Option<Arc<ScalarUDF>> {
    let available = AVAILABLE.get(&name.to_lowercase())?;
    Some(available.function.clone())
}

pub(super) fn usage(name: &str) -> Option<&'static str> {
    let available = AVAILABLE.get(&name.to_lowercase())?;
    Some(available.usage)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    AVAILABLE.keys().map(String::as_str)
}

/// Why there is no such function, or nothing if there is.
pub(super) fn check(name: &str) -> Result<(), String> {
    if find(name).is_some() {
        return Ok(());
    }
    Err(refused(name).unwrap_or_else(|| {
        let known: Vec<&str> = names().collect();
        format!(
            "there is no function {}{}",
            names::quoted(name),
            names::offer(name, &known)
        )
    }))
}

/// For what is deliberately not available.
pub(super) fn refused(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    REFUSED
        .iter()
        .find(|(names, _)| names.contains(&lower.as_str()))
        .map(|(_, reason)| format!("{lower} {reason}"))
}

type Entry = (Arc<ScalarUDF>, &'static str);

fn text() -> Vec<Entry> {
    vec![
        (string::ascii(), "ascii(text)"),
        (string::btrim(), "btrim(text, 'characters')"),
        (string::chr(), "chr(65)"),
        (bounded(string::concat(), Size::Sum), "concat(text, ...)"),
        (
            bounded(string::concat_ws(), Size::Joined),
            "concat_ws(', ', text, ...)",
        ),
        (string::contains(), "contains(text, 'part')"),
        (string::ends_with(), "ends_with(text, 'end')"),
        (unicode::initcap(), "initcap(text)"),
        (unicode::left(), "left(text, 3)"),
        (unicode::character_length(), "length(text)"),
        (string::lower(), "lower(text)"),
        (bounded(unicode::lpad(), Size::Pad), "lpad(text, 8, '0')"),
        (string::ltrim(), "ltrim(text, 'characters')"),
        (
            mask::mask(),
            "mask(text, first, last), as in mask(phone, 3, 4)",
        ),
        (mask::mask_email(), "mask_email(text)"),
        (string::octet_length(), "octet_length(text)"),
        (
            bounded(core::overlay(), Size::Sum),
            "overlay(text placing 'new' from 2 for 3)",
        ),
        (regex::regexp_count(), "regexp_count(text, 'pattern')"),
        (regex::regexp_like(), "regexp_like(text, 'pattern')"),
        (bounded(string::repeat(), Size::Repeat), "repeat(text, 3)"),
        (
            bounded(string::replace(), Size::Replace),
            "replace(text, 'from', 'to')",
        ),
        (unicode::reverse(), "reverse(text)"),
        (unicode::right(), "right(text, 3)"),
        (bounded(unicode::rpad(), Size::Pad), "rpad(text, 8, ' ')"),
        (string::rtrim(), "rtrim(text, 'characters')"),
        (string::split_part(), "split_part(text, '-', 2)"),
        (string::starts_with(), "starts_with(text, 'start')"),
        (unicode::strpos(), "strpos(text, 'part')"),
        (unicode::substr(), "substr(text, 2, 3)"),
        (string::to_hex(), "to_hex(255)"),
        (unicode::translate(), "translate(text, 'abc', 'xyz')"),
        (string::upper(), "upper(text)"),
    ]
}

fn numbers() -> Vec<Entry> {
    vec![
        (math::abs(), "abs(number)"),
        (math::ceil(), "ceil(number)"),
        (finite(math::exp()), "exp(number)"),
        (math::floor(), "floor(number)"),
        (finite(math::ln()), "ln(number)"),
        (finite(math::log10()), "log10(number)"),
        (finite(math::power()), "power(number, 2)"),
        (finite(math::round()), "round(number, 2)"),
        (math::signum(), "signum(number)"),
        (finite(math::sqrt()), "sqrt(number)"),
        (finite(math::trunc()), "trunc(number, 2)"),
    ]
}

fn others() -> Vec<Entry> {
    vec![
        // dates and times
        (at_zone::at_zone(), "at_zone(moment, 'Asia/Shanghai')"),
        (
            of_finite_times(datetime::date_part()),
            "date_part('year', date)",
        ),
        (
            of_finite_times(datetime::date_trunc()),
            "date_trunc('month', timestamp)",
        ),
        (datetime::from_unixtime(), "from_unixtime(seconds)"),
        (datetime::make_date(), "make_date(2024, 1, 31)"),
        (
            bounded(datetime::to_char(), Size::Format),
            "to_char(timestamp, '%Y-%m-%d')",
        ),
        (datetime::to_date(), "to_date('31.01.2024', '%d.%m.%Y')"),
        (
            of_finite_times(datetime::to_unixtime()),
            "to_unixtime(timestamp)",
        ),
        // choices
        (core::coalesce(), "coalesce(value, 0)"),
        (core::greatest(), "greatest(a, b)"),
        (core::least(), "least(a, b)"),
        (core::nullif(), "nullif(value, 0)"),
    ]
}
