//! What is refused when an export is submitted: with its position and a hint.

use super::{
    super::*,
    sample::{eval, refusal},
};

/// Expression, a part of the message, the position.
fn check(cases: &[(&str, &str, u32)]) {
    for (expression, part, position) in cases {
        let (message, at) = refusal(expression);
        assert!(message.contains(part), "{expression}: {message}");
        assert_eq!(at, Some(*position), "{expression}: {message}");
    }
}

#[test]
fn syntax() {
    check(&[
        ("id +", "an expression, found: EOF", 5),
        ("(id", "Expected: )", 4),
        ("id)", "should end before )", 3),
        ("a b", "is an operator missing", 3),
        ("'abc", "Unterminated string", 1),
        ("id, 1", "not a list", 3),
        ("id as x", "no alias", 4),
        ("id; drop table x", "without a semicolon", 3),
        ("*", "an expression, found: *", 1),
        ("名 +", "an expression, found: EOF", 4),
        ("id +\n  * 2", "found: *", 8),
    ]);
    assert_eq!(refusal("  ").0, "an expression can't be empty");
}

#[test]
fn unknown_names() {
    check(&[
        ("1 + emial", "did you mean \"email\"?", 5),
        ("name", "did you mean \"Name\"?", 1),
        ("email = \"new\"", "text is written in single quotes", 9),
        ("t.email", "write email alone", 1),
        ("id = 1 and uper(email) = 'X'", "did you mean \"upper\"", 12),
        ("upper(substr(emial, 1))", "did you mean \"email\"?", 14),
        ("struct(1)", "no function \"struct\"", 1),
        ("arrow_cast(id, 'Utf8')", "no function", 1),
    ]);
    assert!(refusal("zzz").0.ends_with("and 4 more"));
}

#[test]
fn what_sees_more_than_a_row_or_changes_with_time() {
    check(&[
        ("1 + max(id)", "is an aggregate", 5),
        ("count(*)", "is an aggregate", 1),
        ("row_number() over ()", "is a window function", 1),
        ("upper(email) over ()", "only its arguments", 1),
        ("(select 1)", "sub-queries", 2),
        ("id in (select 1)", "sub-queries", 1),
        ("exists (select 1)", "sub-queries", 9),
        ("now()", "another value each time", 1),
        ("day > current_date", "another value each time", 7),
        ("current_timestamp", "another value each time", 1),
        ("random()", "another value each time", 1),
        ("uuid()", "another value each time", 1),
    ]);
}

#[test]
fn constructs_that_have_no_place() {
    check(&[
        ("id = $1", "parameters", 6),
        ("id = :x", "parameters", 6),
        ("array[1,2]", "not available", 7),
        ("at at time zone 'UTC'", "at_zone(", 1),
        ("email ~ 'x'", "regexp_like", 1),
        ("email similar to 'x'", "regexp_like", 1),
        ("id & 1", "operator &", 1),
        ("x'41'", "literal", 1),
        ("concat(distinct email)", "no distinct", 1),
        ("upper(x => email)", "no names", 1),
        ("cast(email as varchar(3))", "left(", 6),
        ("cast(amount as decimal)", "decimal(20, 4)", 6),
        ("cast(id as uuid)", "UUID", 6),
    ]);
}

#[test]
fn types_that_do_not_meet() {
    check(&[
        ("email + 1", "\"email\" is text; for arithmetic cast it", 1),
        ("1 + (email * 2)", "\"email\" is text", 6),
        ("paid + 1", "true or false", 1),
        ("id = '1'", "without quotes", 1),
        ("email = 5", "put the number in quotes", 1),
        ("id in (1, '2')", "without quotes", 1),
        ("id between '1' and '2'", "without quotes", 1),
        ("paid = 'true'", "cast one of them", 1),
        ("id and paid", "\"id\" is bigint: compare it", 1),
        ("case when id then 1 end", "\"id\" is bigint: compare it", 1),
        ("case id when 'x' then 1 end", "without quotes", 1),
        (
            "case when paid then 1 else 'x' end",
            "must be of one type",
            1,
        ),
        ("coalesce(Name, 0)", "must be of one type", 1),
        ("id like '1%'", "like takes text", 1),
        ("at = wall", "time zone", 1),
        ("at >= day", "time zone", 1),
        ("day + clock", "can't be added", 1),
        ("upper(id)", "upper(text)", 1),
        ("mask(email)", "mask(text, first, last)", 1),
        ("id + left(email)", "left(text, 3)", 6),
    ]);
    let (message, position) = refusal("at - at");
    assert!(
        message.contains("an interval can't be a result"),
        "{message}"
    );
    assert_eq!(position, None);
    assert!(refusal("null").0.contains("cast(null as text)"));
}

#[test]
fn numbers_that_travel_as_text_are_cast_first() {
    let hint = "cast(any as decimal(20, 4))";
    check(&[
        ("\"any\" + 1", hint, 1),
        ("\"any\" > 5", hint, 1),
        ("\"any\" = '5'", hint, 1),
        ("greatest(\"any\", '5')", hint, 1),
        ("least('5', \"any\")", hint, 1),
        ("nullif(\"any\", '0')", hint, 1),
        ("id = 1 or coalesce(\"any\", '0') > '5'", hint, 11),
        ("case when paid then \"any\" else '0' end < '5'", hint, 1),
        (
            "coalesce(case when paid then \"any\" end, '0') + 1",
            hint,
            1,
        ),
    ]);
    assert!(eval("coalesce(\"any\", 'none')").is_ok());
    assert!(eval("\"any\" is null").is_ok());
    assert!(eval("\"any\" || ' EUR'").is_ok());
}

#[test]
fn constants_that_have_no_value() {
    check(&[
        ("id + 1 / 0", "division by zero", 6),
        ("9223372036854775807 + 1", "verflow", 1),
        ("day >= 'yesterday'", "'yesterday'", 1),
        ("make_date(2024, 13, 31)", "Month", 1),
        ("regexp_like(email, '(')", "unclosed group", 1),
        (
            "at_zone(at, 'Asia/Shangai')",
            "no time zone 'Asia/Shangai'",
            1,
        ),
        ("at_zone(wall, 'UTC')", "this has none", 1),
        (
            "id = 1 and at_zone(at, email) is null",
            "written as text",
            12,
        ),
        ("regexp_like(email, Name)", "written as text", 1),
    ]);
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let deep = [
        format!("{}1{}", "(".repeat(1500), ")".repeat(1500)),
        format!("{}paid", "not ".repeat(900)),
        format!("{}1", "- ".repeat(1900)),
        format!("id{}", "+id".repeat(1200)),
        format!("id{}", "+1".repeat(1900)),
        format!("id{}", "::text".repeat(600)),
        format!("{}email{}", "upper(".repeat(500), ")".repeat(500)),
        format!(
            "{}1{}",
            "case when paid then ".repeat(150),
            " end".repeat(150)
        ),
        format!("paid{}", " or paid".repeat(400)),
    ];
    for bomb in deep {
        let (message, _) = refusal(&bomb);
        let said = message.contains("nested") || message.contains("times");
        assert!(said, "{}...: {message}", &bomb[..40]);
    }
    let (message, _) = refusal(&format!("'{}'", "x".repeat(5000)));
    assert!(message.contains("4096 bytes"), "{message}");
    check(&[
        ("repeat('x', 1000000000)", "more than 67108864 bytes", 1),
        ("lpad('x', 2000000000)", "more than 67108864 bytes", 1),
        ("rpad('x', 2000000000, 'y')", "more than 67108864 bytes", 1),
        (
            "replace(repeat('x', 100000), 'x', repeat('y', 10000))",
            "more than 67108864 bytes",
            9,
        ),
        // A constant stands in every row of a batch.
        ("repeat('x', 16385)", "more than 67108864 bytes", 1),
        (
            "case when id > 0 then repeat('x', 500000) end",
            "more than 67108864 bytes",
            23,
        ),
        (
            "replace(email, 'n', repeat('y', 60000000))",
            "more than 67108864 bytes",
            21,
        ),
        (
            "repeat('x', 9000) || repeat('y', 9000)",
            "more than 67108864 bytes",
            1,
        ),
        (
            "upper(repeat('ŉ', 8192))",
            "a constant may take 16384 bytes",
            1,
        ),
    ]);
    assert!(eval("length(repeat('x', 16384))").is_ok());
}

#[test]
fn what_is_nested_sensibly_is_accepted() {
    let chain = format!(
        "id in ({})",
        (0..500)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    assert!(eval(&chain).is_ok());
    assert!(eval(&format!("{}id{}", "(".repeat(20), ")".repeat(20))).is_ok());
    assert!(eval(&format!("id{}", "+id".repeat(50))).is_ok());
    let arms: String = (0..60)
        .map(|n| format!(" when {n} then 'state {n}'"))
        .collect();
    assert!(eval(&format!("case status{arms} end")).is_ok());
}

#[test]
fn a_refusal_becomes_a_violation_with_its_position() {
    let failure = eval("1 + emial").unwrap_err().into_failure();
    assert_eq!(failure.code, Code::InvalidArgument);
    assert_eq!(failure.reason, "INVALID_FIELD");
    assert_eq!(failure.metadata["position"], "5");
    assert_eq!(failure.violations[0].field, "spec.columns[0].expression");
    assert!(
        failure.violations[0]
            .description
            .ends_with("(at character 5)")
    );
}
