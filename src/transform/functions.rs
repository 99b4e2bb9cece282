//! Which functions expressions may call: an explicit list, all of them immutable and of bounded cost.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use datafusion_expr::ScalarUDF;
use datafusion_functions::{core, datetime, math, regex, string, unicode};

use super::names;

/// By name and alias, lower case.
static AVAILABLE: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut available = BTreeMap::new();
    for function in list() {
        for alias in function.aliases() {
            available.insert(alias.clone(), function.clone());
        }
        available.insert(function.name().to_owned(), function);
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
        "gives another value each time, so that a retried export would differ; it is not available",
    ),
];

pub(super) fn find(name: &str) -> Option<Arc<ScalarUDF>> {
    AVAILABLE.get(&name.to_lowercase()).cloned()
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

fn list() -> Vec<Arc<ScalarUDF>> {
    vec![
        // text
        string::ascii(),
        string::bit_length(),
        string::btrim(),
        string::chr(),
        string::concat(),
        string::concat_ws(),
        string::contains(),
        string::ends_with(),
        string::lower(),
        string::ltrim(),
        string::octet_length(),
        string::rtrim(),
        string::split_part(),
        string::starts_with(),
        string::to_hex(),
        string::upper(),
        unicode::character_length(),
        unicode::initcap(),
        unicode::left(),
        unicode::reverse(),
        unicode::right(),
        unicode::strpos(),
        unicode::substr(),
        unicode::translate(),
        core::overlay(),
        regex::regexp_like(),
        regex::regexp_count(),
        // numbers
        math::abs(),
        math::ceil(),
        math::floor(),
        math::round(),
        math::trunc(),
        math::signum(),
        math::power(),
        math::sqrt(),
        math::exp(),
        math::ln(),
        math::log10(),
        // dates and times
        datetime::date_part(),
        datetime::date_trunc(),
        datetime::make_date(),
        datetime::to_char(),
        datetime::to_date(),
        datetime::to_unixtime(),
        // choices
        core::coalesce(),
        core::nullif(),
        core::greatest(),
        core::least(),
    ]
}
