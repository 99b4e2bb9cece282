//! `docs/expressions.md` says what is so.

use std::collections::BTreeSet;

use super::{super::functions, sample::eval};

const DOCUMENT: &str = include_str!("../../../docs/expressions.md");

/// Rows of its tables: expression and result.
fn examples() -> Vec<(String, String)> {
    DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` |"))
        .map(|row| row.split_once("` | `").expect("two columns"))
        .map(|(expression, result)| (expression.replace("\\|", "|"), result.to_owned()))
        .collect()
}

#[test]
fn every_example_gives_its_result() {
    let examples = examples();
    assert!(examples.len() > 80, "{}", examples.len());
    for (expression, result) in examples {
        let (_, found) = eval(&expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert_eq!(found[0], result, "{expression}");
    }
}

#[test]
fn every_function_has_an_example() {
    let shown: BTreeSet<String> = examples()
        .iter()
        .filter_map(|(expression, _)| Some(expression.split_once('(')?.0.to_owned()))
        .filter_map(|name| Some(functions::find(&name)?.name().to_owned()))
        .collect();
    let all: BTreeSet<String> = functions::names()
        .map(|name| functions::find(name).unwrap().name().to_owned())
        .collect();
    let missing: Vec<_> = all.difference(&shown).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
