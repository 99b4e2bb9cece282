use serde_json::json;

use super::*;

fn convert(r#type: &str, value: Value) -> Result<ParamValue, String> {
    ParamType::parse(r#type).expect("a type").value(&value)
}

#[test]
fn types_read_back_and_errors_name_them_all() {
    for scalar in ScalarType::ALL {
        for is_list in [false, true] {
            let r#type = ParamType { scalar, is_list };
            assert_eq!(ParamType::parse(&r#type.to_string()), Some(r#type));
        }
    }
    let error = ParamType::try_from("integer".to_owned()).expect_err("unknown");
    assert!(
        error.contains("int64, float64") && error.contains("int64[]"),
        "{error}"
    );
    assert_eq!(ParamType::parse("int64[][]"), None);
}

#[test]
fn strings_are_accepted_by_every_type() {
    for (r#type, text) in [
        ("bool", "true"),
        ("int64", "-9223372036854775808"),
        ("float64", "1e300"),
        ("decimal", "-12.50"),
        ("text", ""),
        ("date", "2024-02-29"),
        ("time", "23:59:59.999999"),
        ("timestamp", "2024-02-29T23:59:59.999999"),
        ("timestamp", "2024-02-29"),
        ("timestamp", "2024-02-29T00:00:00Z"),
        ("timestamptz", "2024-02-29T23:59:59+08:00"),
        ("uuid", "018f4e3c-0000-7000-8000-000000000001"),
        ("bytes", "\\x00ff"),
        ("bytes", "AP8="),
    ] {
        convert(r#type, json!(text)).unwrap_or_else(|e| panic!("{type} {text}: {e}"));
    }
}

#[test]
fn a_value_that_would_change_is_refused() {
    for (r#type, value) in [
        ("int64", json!(9_007_199_254_740_993_i64)),
        ("int64", json!(9_007_199_254_740_992_f64)),
        ("int64", json!(1.5)),
        ("int64", json!("9223372036854775808")),
        ("int64", json!(true)),
        ("float64", json!(1e300)),
        ("decimal", json!("1.2.3")),
        ("decimal", json!("NaN")),
        ("decimal", json!("")),
        ("text", json!(5)),
        ("date", json!("2024-01-01T10:00:00")),
        ("date", json!("2023-02-29")),
        ("time", json!("10:00:00.0000001")),
        ("time", json!("10:00:00+01:00")),
        ("timestamp", json!("2024-01-01T10:00:00+01:00")),
        ("timestamp", json!("2024-01-01T10:00:00-01:00")),
        ("timestamptz", json!("2024-01-01T10:00:00")),
        ("timestamptz", json!("2024-01-01T10:00:00.0000001Z")),
        ("bool", json!(1)),
        ("uuid", json!("nope")),
        ("bytes", json!("\\xzz")),
        ("int64[]", json!(1)),
        ("int64", json!([1])),
        ("int64[]", json!([1, "x"])),
    ] {
        let result = convert(r#type, value.clone());
        assert!(result.is_err(), "{type} {value}: {result:?}");
    }
}

#[test]
fn numbers_and_lists_arrive_typed() {
    assert_eq!(convert("int64", json!(5.0)), Ok(ParamValue::Int64(5)));
    assert_eq!(
        convert("decimal", json!(0.1)),
        Ok(ParamValue::Decimal("0.1".to_owned()))
    );
    assert_eq!(
        convert("int64[]", json!([1, "2", null])),
        Ok(ParamValue::List(
            ScalarType::Int64,
            vec![
                ParamValue::Int64(1),
                ParamValue::Int64(2),
                ParamValue::Null(ParamType::parse("int64"))
            ]
        ))
    );
    assert_eq!(
        convert("date[]", Value::Null),
        Ok(ParamValue::Null(ParamType::parse("date[]")))
    );
}

#[test]
fn errors_name_the_field() {
    let r#type = ParamType::parse("int64").expect("a type");
    let failure = r#type.convert("since", &json!("x")).expect_err("no number");
    assert_eq!(failure.violations[0].field, "spec.params.since");
    assert!(untyped("a", &json!(9_007_199_254_740_993_i64)).is_err());
    assert!(untyped("a", &json!([1, {}])).is_err());
    assert_eq!(untyped("a", &json!(null)), Ok(ParamValue::Null(None)));
}
