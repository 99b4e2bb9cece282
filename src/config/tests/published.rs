//! What others read of the configuration holds: the documentation, and the examples.

use std::{fs, path::PathBuf};

use super::{
    super::{keys, load},
    env, file,
};

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_examples_load() {
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("queue-url");
    fs::write(&secret, "postgres://rowgate:hunter2@db.internal/rowgate").unwrap();
    let mut loaded = 0;
    for entry in fs::read_dir(repository("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        // The one thing that a test machine doesn't have.
        let text = fs::read_to_string(&path).unwrap().replace(
            "/run/secrets/rowgate-queue-url",
            &secret.display().to_string(),
        );
        let (_dir, mut inputs) = file(&text);
        inputs.env = env(&[
            ("SHOP_URL", "postgres://reader:hunter2@db.internal/shop"),
            ("QUEUE_URL", "postgres://rowgate:hunter2@db/rowgate"),
            ("REDIS_URL", "redis://:hunter2@cache:6379"),
            ("ERP_URL", "mysql://reader:hunter2@erp.internal/erp"),
        ])
        .env;
        let config = load(inputs).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!config.sources.is_empty(), "{}", path.display());
        loaded += 1;
    }
    assert!(loaded >= 2, "examples/*.toml");
}

/// docs/configuration.md has a row for each key, with the default that is in force, and no row for anything else.
#[test]
fn every_key_is_documented() {
    let text = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    let mut section = String::new();
    let mut documented = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.trim_end_matches("]`").replace("NAME", "*");
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.split(" | ").collect();
            let path = format!("{section}.{}", cells[0].trim_end_matches('`'));
            documented.push((path, cells[2].trim_matches('`').to_owned()));
        }
    }
    let expected: Vec<(String, String)> = keys::KEYS
        .iter()
        .map(|key| {
            let default = match key.default {
                keys::Default::Toml(default) => default,
                keys::Default::Required => "required",
                keys::Default::Absent => "none",
            };
            (key.path.to_owned(), default.to_owned())
        })
        .collect();
    assert_eq!(documented, expected);
}
