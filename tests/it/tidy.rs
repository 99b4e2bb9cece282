//! The rules of the house that no compiler checks: who may import whom, which crate stays in which module, how long a
//! file may be. A rule that stands in the way of good code is changed here, with its reason, not worked around.

mod sources;

use std::collections::{BTreeMap, BTreeSet};

use sources::{
    Source, code_of, files_below, has_group, has_path, names_machine, read, shown, sources,
};

/// Who may import whom, downward only; whoever may import a module may import what that one may. Modules of `src/`
/// that are not listed here fail the test: a new one gets its place first.
const LAYERS: &[(&str, &[&str])] = &[
    // The domain imports nothing of ours.
    ("export", &[]),
    // Tools that know nothing about exports.
    ("task", &[]),
    ("telemetry", &[]),
    ("queue", &["export"]),
    ("source", &["export"]),
    ("transform", &["export"]),
    ("format", &["export"]),
    ("storage", &["export", "task"]),
    // The watchdog falls back to the database.
    ("lease", &["export", "queue", "task"]),
    (
        "pipeline",
        &["source", "transform", "format", "storage", "task"],
    ),
    (
        "run",
        &["queue", "lease", "pipeline", "storage", "telemetry"],
    ),
    ("worker", &["run", "queue", "lease"]),
    ("service", &["run", "queue", "storage"]),
    ("rpc", &["service"]),
    ("http", &["service"]),
    ("config", &["export", "source"]),
    ("app", &["config", "rpc", "http", "service", "worker"]),
    ("cli", &["app", "config"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Crates that stay behind one seam: where they may be named, as modules or files.
const CRATES: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
            "prost",
            "prost_types",
        ],
        &["rpc", "cli"],
        "gRPC ends in rpc and begins in cli: give rpc a function that takes and returns domain types",
    ),
    (
        &["redis"],
        &["lease"],
        "Redis tells whether an owner is alive, nothing else: put it under lease",
    ),
    (
        &["sqlx"],
        &["queue", "source"],
        "databases are the queue and the sources: add a method to JobStore or Source",
    ),
    (
        &["rusqlite"],
        &["source"],
        "the queue uses sqlx; rusqlite only reads SQLite sources",
    ),
];

const BANNED_NAMES: &[&str] = &[
    "common", "helper", "helpers", "misc", "types", "util", "utils",
];

const LINES_MAX: usize = 600;

#[test]
fn imports_go_downward() {
    let allowed = closure();
    let mut wrong = Vec::new();
    for file in sources() {
        let module = &file.top;
        let Some(below) = allowed.get(module.as_str()) else {
            wrong.push(format!(
                "{}: the module {module} has no place in LAYERS of tests/it/tidy.rs",
                file.path
            ));
            continue;
        };
        for (line, imported) in file.imports(&allowed) {
            if imported != *module && !below.contains(imported.as_str()) {
                wrong.push(format!(
                    "{}:{line}: {module} may not import {imported}: {}",
                    file.path,
                    if below.is_empty() {
                        "it imports nothing of ours".to_owned()
                    } else {
                        let below: Vec<&str> = below.iter().copied().collect();
                        format!(
                            "only {}; move the shared type down, or pass a value",
                            below.join(", ")
                        )
                    }
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_edges_stay_at_the_edges() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (crates, places, instead) in CRATES {
            // A module's own tests may read with a crate what the module writes by hand.
            if places.contains(&file.top.as_str()) || file.path.ends_with("/tests.rs") {
                continue;
            }
            for (line, name) in file.crates_named(crates) {
                wrong.push(format!(
                    "{}:{line}: {name} only in {}: {instead}",
                    file.path,
                    places.join(" and ")
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let mut wrong = Vec::new();
    for file in sources() {
        let may = ["src/config/load.rs", "src/main.rs"].contains(&file.path.as_str());
        if may || file.path.ends_with("/tests.rs") {
            continue;
        }
        for (number, line) in file.code_lines() {
            if has_path(line, &["std", "env"]) || has_group(line, "std", "env") {
                wrong.push(format!(
                    "{}:{number}: std::env only in config/load.rs (and arguments in main.rs): add a key to \
                     config/keys.rs, or take the value as a parameter",
                    file.path
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn files_are_short_or_say_why() {
    let mut wrong = Vec::new();
    for path in files_below(&["src", "tests", "benches", "examples"], &["rs"]) {
        let text = read(&path);
        let lines = text.lines().count();
        let says_why = text.lines().any(|line| {
            line.strip_prefix("// length: ")
                .is_some_and(|reason| reason.len() > 10)
        });
        if lines > LINES_MAX && !says_why {
            wrong.push(format!(
                "{}: {lines} lines, more than {LINES_MAX}: split it by what it owns, or say why not in a line \
                 `// length: reason`",
                shown(&path)
            ));
        }
    }
    assert_none(wrong);
}

#[test]
fn modules_are_named_after_what_they_own() {
    let mut wrong = Vec::new();
    for path in files_below(&["src", "tests", "benches"], &["rs"]) {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if BANNED_NAMES.contains(&stem.as_str()) {
            wrong.push(format!(
                "{}: name it after what it owns, not {stem}",
                shown(&path)
            ));
        }
        if stem == "mod" {
            wrong.push(format!(
                "{}: write foo.rs beside foo/, not foo/mod.rs",
                shown(&path)
            ));
        }
    }
    assert_none(wrong);
}

#[test]
fn modules_open_with_what_they_own() {
    let mut wrong = Vec::new();
    for path in files_below(&["src", "tests"], &["rs"]) {
        let text = read(&path);
        // foo/tests.rs owns the tests of foo, and a few lines show what they own.
        let is_plain = path.ends_with("tests.rs") || text.lines().count() <= 10;
        if !is_plain && !text.starts_with("//!") {
            wrong.push(format!(
                "{}: open with a `//!` line: what the file owns, and what it refuses to know",
                shown(&path)
            ));
        }
    }
    assert_none(wrong);
}

#[test]
fn no_path_of_somebodys_machine() {
    // Put together, so that this file doesn't hold them.
    let machines: Vec<String> = ["work", "home", "root", "Users"]
        .iter()
        .map(|folder| format!("/{folder}/"))
        .collect();
    let mut wrong = Vec::new();
    let kinds = [
        "rs", "toml", "md", "sh", "py", "sql", "proto", "yaml", "yml", "json", "", "lua",
    ];
    for path in files_below(&["."], &kinds) {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            if let Some(machine) = machines.iter().find(|machine| names_machine(line, machine)) {
                wrong.push(format!(
                    "{}:{}: {machine}… exists on one machine: write a relative path, or make a temporary folder",
                    shown(&path),
                    number + 1
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn migrations_come_in_pairs() {
    let names = |backend: &str| -> BTreeSet<String> {
        files_below(&[&format!("migrations/{backend}")], &["sql"])
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect()
    };
    let (postgres, sqlite) = (names("postgres"), names("sqlite"));
    assert!(
        !postgres.is_empty(),
        "the queue's tables come from migrations/"
    );
    let wrong = postgres
        .symmetric_difference(&sqlite)
        .map(|name| {
            let missing = if postgres.contains(name) {
                "sqlite"
            } else {
                "postgres"
            };
            format!(
                "migrations/{missing}/{name} is missing: both sides have the same numbers and names"
            )
        })
        .collect();
    assert_none(wrong);
}

/// The rules above find what they are meant to find.
#[test]
fn the_rules_have_teeth() {
    let file = Source {
        path: "src/queue/postgres.rs".to_owned(),
        top: "queue".to_owned(),
        depth: 2,
        text: code_of(
            "//! [`crate::rpc`] in a comment\nuse crate::{export::{ExportId, Fence}, rpc::pb};\n\
             /* crate::cli */ let x = \"crate::cli\"; let q = '\"'; crate::worker::run();\n\
             use super::super::service::Tokens;\nuse super::row;\nlet raw = r#\"crate::http\"#;\n\
             fn f<'a>(x: &'a tonic::Status) { sqlx::query(); redis_like::x() }\nuse std::{env, fs};\nuse std::env;\n",
        ),
    };
    let imports: Vec<(usize, String)> = file.imports(&closure());
    let expected = [(2, "export"), (2, "rpc"), (3, "worker"), (4, "service")];
    let expected: Vec<(usize, String)> = expected
        .iter()
        .map(|(line, name)| (*line, (*name).to_owned()))
        .collect();
    assert_eq!(imports, expected);
    assert_eq!(
        file.crates_named(&["tonic", "redis", "sqlx"]),
        [(7, "sqlx".to_owned()), (7, "tonic".to_owned())]
    );
    let env: Vec<usize> = file
        .code_lines()
        .filter(|(_, line)| has_path(line, &["std", "env"]) || has_group(line, "std", "env"))
        .map(|(number, _)| number)
        .collect();
    assert_eq!(env, [8, 9]);
    assert!(names_machine("cd /srv/x", "/srv/") && !names_machine("a/srv/x, $root/srv/", "/srv/"));
}

fn closure() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let direct: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    direct
        .keys()
        .map(|module| {
            let mut below = BTreeSet::new();
            let mut open = direct[module].to_vec();
            while let Some(next) = open.pop() {
                assert_ne!(next, *module, "LAYERS has a circle through {module}");
                if below.insert(next) {
                    open.extend(direct[next]);
                }
            }
            (*module, below)
        })
        .collect()
}

#[track_caller]
fn assert_none(wrong: Vec<String>) {
    assert!(
        wrong.is_empty(),
        "{} places to put right:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
