use super::*;

fn read(name: &str, order_by: &[&str]) -> Result<TableQuery, Failure> {
    parse(&TableRead {
        name: name.to_owned(),
        order_by: order_by.iter().map(|s| (*s).to_owned()).collect(),
        limit: Some(5),
    })
}

#[test]
fn names_and_orders_are_quoted_exactly() {
    let query = read(
        "Sales.or\"ders",
        &["Total x", "id desc", "name ASC", "odd desc asc"],
    );
    assert_eq!(
        select(&query.expect("valid"), "*", Dialect::Postgres),
        "select * from \"Sales\".\"or\"\"ders\" order by \"Total x\", \"id\" desc, \"name\", \"odd desc\" limit 5"
    );
    let query = read("a`b", &[]).expect("valid");
    assert_eq!(
        select(&query, "*", Dialect::Mysql),
        "select * from `a``b` limit 5"
    );
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let failure = read("a.b.c", &["id", "", "x\0 desc"]).expect_err("wrong");
    let fields: Vec<_> = failure
        .violations
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    let expected = [
        "spec.table.name",
        "spec.table.order_by[1]",
        "spec.table.order_by[2]",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn bad_names_say_which_field() {
    for (name, order, field) in [
        ("", "id", "spec.table.name"),
        (".t", "id", "spec.table.name"),
        ("a.b.c", "id", "spec.table.name"),
        ("t\0", "id", "spec.table.name"),
        ("t", "", "spec.table.order_by[0]"),
        ("t", " desc", "spec.table.order_by[0]"),
    ] {
        let failure = read(name, &[order]).expect_err(name);
        assert_eq!(failure.violations[0].field, field);
    }
}

#[test]
fn the_allow_list_matches_whole_names() {
    let allowed = |pattern: &str, default: Option<&str>, name: &str| {
        is_allowed(
            &[pattern.to_owned()],
            default,
            &read(name, &[]).expect("valid"),
        )
    };
    let public = Some("public");
    assert!(allowed("public.*", public, "orders"));
    assert!(allowed("public.*", public, "public.orders"));
    assert!(allowed("orders", public, "public.orders"));
    assert!(allowed("*", public, "other.orders"));
    assert!(allowed("*.orders", public, "other.orders"));
    assert!(allowed("public.ord*_2*", public, "orders_2024"));
    assert!(allowed("orders", None, "orders"));
    assert!(!allowed("public.*", public, "other.orders"));
    assert!(!allowed("public.*", Some("mine"), "orders"));
    assert!(!allowed("orders", public, "other.orders"));
    assert!(!allowed("public.orders", public, "Orders"));
    assert!(!allowed("public.order", public, "orders"));
    assert!(!allowed("pub.*", public, "public.orders"));
    assert!(!allowed("a*a", None, "a"));
    assert!(!allowed("main.*", None, "orders"));
}
