//! What the catalog knows to be wrong is known before anything starts.

use super::*;

#[test]
fn all_that_is_wrong_with_definitions_is_said_at_once() {
    let problems = problems(load_file(
        r#"
        [sources.shop]
        url = "postgres://reader@db/shop"
        [sources.shop.definitions.undeclared]
        sql = "select :a, :b, :c"
        params = { c = { type = "int64" } }
        [sources.shop.definitions.unused]
        sql = "select :n"
        params = { m = { type = "text" }, n = { type = "int64", default = "soon" } }
        [sources.shop.definitions.open]
        sql = "select 1; select 2"
        [sources.other]
        url = "sqlite://other.db"
        definitions.unused = { sql = "select 1", params = { x = { type = "text" } } }
        "#,
    ));
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    let of_shop = "sources.shop.definitions";
    assert_eq!(
        keys,
        [
            "sources.other.definitions.unused.params.x".to_owned(),
            format!("{of_shop}.open.sql"),
            format!("{of_shop}.undeclared.params"),
            format!("{of_shop}.undeclared.params"),
            format!("{of_shop}.unused.params.m"),
            format!("{of_shop}.unused.params.n.default"),
        ]
    );
    for problem in &problems {
        let origin = problem.origin.as_deref().unwrap_or_default();
        assert!(origin.contains("rowgate.toml"), "{problem}");
    }
    assert!(problems[2].message.contains(":a"), "{}", problems[2]);
    assert!(problems[3].message.contains(":b"), "{}", problems[3]);
}

#[test]
fn a_secret_of_another_type_is_not_repeated() {
    for wrong in [
        "url = ['hunter2']",
        "url = 5551234",
        "url = { hunter2 = 'x' }",
        "url = { env = 5551234 }",
        "url = 'mongodb://u:hunter2@h/d'",
        "url = 'u:hunter2@h/d'",
    ] {
        for section in ["sources.shop", "queue", "lease"] {
            let error = load_file(&format!("[{section}]\n{wrong}\n")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("{section}.url")), "{text}");
            for secret in ["hunter2", "5551234"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
    let text = problem("[lease]\nurl = 'memcached://u:hunter2@h'");
    assert!(!text.contains("hunter2"), "{text}");
}
