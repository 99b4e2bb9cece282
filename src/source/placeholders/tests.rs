use proptest::prelude::*;

use super::*;
use crate::source::ParamValue;

fn postgres(sql: &str) -> Rewritten {
    rewrite(sql, Dialect::Postgres).expect("accepted")
}

fn refused(sql: &str, dialect: Dialect) -> (String, Option<u32>) {
    match rewrite(sql, dialect) {
        Err(Error::Rejected {
            message, position, ..
        }) => (message, position),
        other => panic!("{sql:?} gave {other:?}"),
    }
}

#[test]
fn a_name_is_bound_once_in_postgres_and_each_time_elsewhere() {
    let sql = "select * from t where a > :since and (b = :who or c = :since)";
    let rewritten = postgres(sql);
    assert_eq!(
        rewritten.sql,
        "select * from t where a > $1 and (b = $2 or c = $1)"
    );
    assert_eq!(rewritten.names, ["since", "who"]);
    let rewritten = rewrite(sql, Dialect::Mysql).expect("accepted");
    assert_eq!(
        rewritten.sql,
        "select * from t where a > ? and (b = ? or c = ?)"
    );
    assert_eq!(rewritten.names, ["since", "who", "since"]);
    assert_eq!(rewritten.distinct_names(), ["since", "who"]);
}

#[test]
fn nothing_quoted_or_commented_is_a_placeholder() {
    for sql in [
        "select ':a'",
        "select 'it''s :a'",
        r"select E'\':a'",
        "select E'x'\n  '\\':a'",
        "select E'x' -- \n '\\':a'",
        r"select e'\\', 1::int4",
        "select \":a\"\"b\"",
        "select $$ :a $$",
        "select $tag$ :a $$ :b $tag$",
        "select 1 -- :a",
        "select 1 /* :a /* :b */ :c */",
        "select '{}'::int[], a[1: 2], x := 1",
    ] {
        let rewritten = postgres(sql);
        assert_eq!(rewritten.names, [""; 0], "{sql}");
        assert_eq!(rewritten.sql, sql);
    }
    for sql in [
        r"select '\':a'",
        r#"select "\":a""#,
        "select `:a`",
        "select 1 # :a",
        "select 1 -- :a",
        "select 1 --",
    ] {
        let rewritten = rewrite(sql, Dialect::Mysql).expect("accepted");
        assert_eq!(rewritten.names, [""; 0], "{sql}");
    }
    for sql in [
        "select [:a]",
        "select `:a`",
        "select ':a\\'",
        "select 1 /* /* :a */",
    ] {
        let rewritten = rewrite(sql, Dialect::Sqlite).expect("accepted");
        assert_eq!(rewritten.names, [""; 0], "{sql}");
    }
}

#[test]
fn what_only_looks_quoted_still_holds_placeholders() {
    for sql in [
        r"select '\', :a",
        "select nameE'\\', :a",
        "select a$$, :a, b$$",
        "select 1 /* x */ + :a",
        "select '' , :a",
        "select 'x'\n'y', :a",
    ] {
        assert_eq!(postgres(sql).names, ["a"], "{sql}");
    }
    // In MySQL two dashes without a blank are two minus signs, and comments don't nest.
    for sql in ["select 1--:a", "select /* /* */ :a"] {
        let rewritten = rewrite(sql, Dialect::Mysql).expect("accepted");
        assert_eq!(rewritten.names, ["a"], "{sql}");
    }
}

#[test]
fn one_statement_only() {
    assert_eq!(postgres("select 1 ; \n-- end\n; ").sql, "select 1 ");
    assert_eq!(postgres("select ';'").sql, "select ';'");
    let (message, position) = refused("select 1; drop table t", Dialect::Postgres);
    assert_eq!(message, "the SQL text holds more than one statement");
    assert_eq!(position, Some(11));
    refused("select 1 /* /* */ ; */ select 2", Dialect::Mysql);
    postgres("select 1 /* /* */ ; */ -- select 2");
    for sql in ["", " \n", "-- only a comment", ";", "; select 1", "a\0b"] {
        refused(sql, Dialect::Postgres);
    }
}

#[test]
fn the_databases_own_parameters_are_refused() {
    refused("select $1", Dialect::Postgres);
    refused("select ?", Dialect::Mysql);
    for sql in ["select ?1", "select @a", "select $a"] {
        refused(sql, Dialect::Sqlite);
    }
    assert_eq!(postgres("select '{}'::jsonb ? 'a'").names, [""; 0]);
    assert_eq!(
        rewrite("select @a", Dialect::Mysql).expect("accepted").sql,
        "select @a"
    );
}

#[test]
fn positions_lead_back_to_the_clients_text() {
    let client = "select :l + :first_parameter + oops";
    let rewritten = postgres(client);
    let oops_at = rewritten.sql.find("oops").expect("kept") as u32 + 1;
    assert_eq!(
        rewritten.client_position(oops_at),
        client.find("oops").expect("there") as u32 + 1
    );
    assert_eq!(rewritten.client_position(1), 1);
    let second = rewritten.sql.find("$2").expect("there") as u32 + 1;
    assert_eq!(
        rewritten.client_position(second + 1),
        client.find(":first").expect("there") as u32 + 1
    );
}

#[test]
fn a_placeholder_glued_to_a_word_stays_one() {
    let rewritten = postgres("select:a");
    assert_eq!(rewritten.sql, "select $1");
    assert_eq!(rewritten.client_position(8), 7);
}

/// A piece of SQL, and the placeholder that it is.
fn piece(dialect: Dialect) -> impl Strategy<Value = (String, Option<String>)> {
    let text = "[a-z:;?'\"\\\\ $*/-]{0,6}";
    let opaque = match dialect {
        Dialect::Postgres => prop_oneof![
            "[a-z:;?$ ]{0,6}".prop_map(|t| format!("$q$ {t} $q$").replace("$q$ $", "$q$ ")),
            text.prop_map(|t| format!("E'{}'", t.replace('\\', "\\\\").replace('\'', "\\'"))),
            text.prop_map(|t| format!("'{}'", t.replace('\'', "''"))),
            "[a-z:;?'\" ]{0,6}".prop_map(|t| format!("/* {t} /* {t} */ {t} */")),
        ]
        .boxed(),
        Dialect::Mysql => prop_oneof![
            text.prop_map(|t| format!("'{}'", t.replace('\\', "\\\\").replace('\'', "\\'"))),
            "[a-z:;?'\" ]{0,6}".prop_map(|t| format!("`{t}`")),
            "[a-z:;?'\" ]{0,6}".prop_map(|t| format!("# {t}\n")),
        ]
        .boxed(),
        Dialect::Sqlite => prop_oneof![
            text.prop_map(|t| format!("'{}'", t.replace('\'', "''"))),
            "[a-z:;?'\" ]{0,6}".prop_map(|t| format!("[{t}]")),
            "[a-z:;?'\" ]{0,6}".prop_map(|t| format!("`{t}`")),
        ]
        .boxed(),
    };
    prop_oneof![
        opaque.prop_map(|t| (t, None)),
        text.prop_map(|t| (format!("\"{}\"", t.replace(['"', '\\'], "")), None)),
        "[a-z:;?'\" ]{0,6}".prop_map(|t| (format!("-- {t}\n"), None)),
        Just(("::text".to_owned(), None)),
        "[a-dü]{1,3}".prop_map(|t| (t, None)),
        "[a-d_][a-d0-9_]{0,4}".prop_map(|t| (format!(":{t}"), Some(t))),
    ]
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Dialect::Postgres),
        Just(Dialect::Mysql),
        Just(Dialect::Sqlite)
    ]
}

proptest! {
    #[test]
    fn exactly_the_placeholders_are_found(
        (dialect, pieces) in any_dialect()
            .prop_flat_map(|d| (Just(d), proptest::collection::vec(piece(d), 0..12)))
    ) {
        let texts: Vec<_> = pieces.iter().map(|(text, _)| text.as_str()).collect();
        let sql = format!("select {}", texts.join(" "));
        let rewritten = rewrite(&sql, dialect).expect("one statement");
        let mut expected: Vec<_> = pieces.iter().filter_map(|(_, name)| name.clone()).collect();
        if dialect == Dialect::Postgres {
            let mut seen = Vec::new();
            expected.retain(|n| !seen.contains(n) && { seen.push(n.clone()); true });
        }
        prop_assert_eq!(&rewritten.names, &expected);
        // Every character that is not of a placeholder is where the map says.
        let client: Vec<char> = sql.chars().collect();
        for (at, c) in rewritten.sql.chars().enumerate() {
            let there = client[rewritten.client_position(at as u32 + 1) as usize - 1];
            prop_assert!(there == c || there == ':', "{} at {}", c, at);
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(sql in "\\PC{0,40}", dialect in any_dialect()) {
        let _ = rewrite(&sql, dialect);
    }

    #[test]
    fn hostile_text_is_taken_or_refused(sql in "[:;'\"`$eE\\[\\]/*\\-#\\\\\n a]{0,40}", dialect in any_dialect()) {
        let _ = rewrite(&sql, dialect);
    }
}

#[test]
fn lists_become_one_placeholder_for_each_value() {
    let list = |name: &str, values: serde_json::Value| Param {
        name: name.to_owned(),
        value: ParamValue::Untyped(values),
    };
    let params = [
        list("ids", serde_json::json!([1, 2, 3])),
        list("none", serde_json::json!([])),
        list("one", serde_json::json!(1)),
    ];
    let sql = "select '?é' where a in (:ids) and b = :one and c in (:none) and oops";
    let rewritten = rewrite(sql, Dialect::Mysql)
        .expect("good")
        .expand_lists(&params);
    assert_eq!(
        rewritten.sql,
        "select '?é' where a in (?, ?, ?) and b = ? and c in \
         (select null from (select 1) as none where 1 = 0) and oops"
    );
    assert_eq!(rewritten.names, ["ids", "one", "none"]);
    let position = |text: &str| {
        rewritten
            .sql
            .split(text)
            .next()
            .expect("a part")
            .chars()
            .count()
    };
    let client = |text: &str| sql.split(text).next().expect("a part").chars().count();
    assert_eq!(
        rewritten.client_position(position("oops") as u32 + 1),
        client("oops") as u32 + 1
    );
}

#[test]
fn first_words() {
    for (sql, dialect, word) in [
        ("SELECT 1", Dialect::Mysql, "select"),
        (
            " /* a */ # b\n -- c\n ((select 1))",
            Dialect::Mysql,
            "select",
        ),
        (
            "with x as (select 1) select * from x",
            Dialect::Mysql,
            "with",
        ),
        ("/*! delete from t */", Dialect::Mysql, ""),
        ("call p()", Dialect::Mysql, "call"),
        ("", Dialect::Mysql, ""),
        (
            "/* a /* b */ call */ ( values(1))",
            Dialect::Postgres,
            "values",
        ),
        (
            "-- select\n explain analyze select 1",
            Dialect::Postgres,
            "explain",
        ),
        ("/* select", Dialect::Postgres, ""),
    ] {
        assert_eq!(first_word(sql, dialect), word, "{sql}");
    }
}
