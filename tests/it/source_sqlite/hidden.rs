//! What a client of a definition is told when its query fails: that it does, and nothing of the query.

use rowgate::source::Error;

use super::file;
use crate::support::reading::{definition, options, read};

/// Rows from 0 to 9999.
const ROWS: &str = "with recursive n(i) as (select 0 union all select i + 1 from n where i < 9999)";

#[tokio::test]
async fn a_definitions_text_is_not_told_before_it_runs() {
    let file = file("create table t(i integer)");
    for text in [
        "select hidden_column from hidden_table",
        "select i, hidden_function(i) from t",
        // Found by the rows that give the columns their types.
        "select json('{hidden') as hidden_column from (select 1)",
        "select x'00' as hidden_column union all select 1",
    ] {
        let resolved = definition(&file.url, text, None).await.expect("it exists");
        let described = resolved.source.describe(&resolved.query).await;
        let failure = described.expect_err(text).into_failure();
        assert_hidden(&failure, text);
    }
}

#[tokio::test]
async fn a_definitions_text_and_columns_are_not_told_when_a_row_fails() {
    let file = file("create table t(i integer)");
    for (value, reason) in [
        ("json('{hidden')", "QUERY_FAILED"),
        ("'hidden value'", "TYPE_CHANGED"),
        ("x'ff'", "TYPE_CHANGED"),
    ] {
        let text = format!(
            "{ROWS} select case when i = 6000 then {value} else i end as hidden_column from n"
        );
        let resolved = definition(&file.url, &text, None).await.expect("it exists");
        let described = resolved.source.describe(&resolved.query).await;
        described.expect("the first rows are good");
        let (outcome, got) = read(resolved, options()).await;
        let error = outcome.expect_err(&text);
        assert!(!error.retryable());
        assert!(
            matches!(error, Error::Query { .. } | Error::DefinitionValue { .. }),
            "{error:?}"
        );
        let failure = error.into_failure();
        assert_eq!(failure.reason, reason, "{text}");
        assert_hidden(&failure, &text);
        assert_eq!(got.row_count(), 6000, "the rows before it were handed over");
    }
}

fn assert_hidden(failure: &rowgate::export::Failure, text: &str) {
    let told = serde_json::to_string(failure).expect("a failure is JSON");
    assert!(failure.message.contains("\"report\""), "{text}: {told}");
    for secret in ["hidden", "6000", "JSON", "blob", "Int64"] {
        assert!(!told.contains(secret), "{text}: {told}");
    }
}
