//! Every rule of the configuration, by its effect.

mod published;
mod roles;
mod sources;

use std::{fs, path::PathBuf};

use secrecy::ExposeSecret;

use super::*;
use crate::export::limits::DEFAULT_KEY;

fn file(text: &str) -> (tempfile::TempDir, Inputs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rowgate.toml");
    fs::write(&path, text).unwrap();
    let inputs = Inputs {
        file: Some(path),
        ..Inputs::default()
    };
    (dir, inputs)
}

fn load_file(text: &str) -> Result<Config, Error> {
    let (_dir, inputs) = file(text);
    load(inputs)
}

fn env(pairs: &[(&str, &str)]) -> Inputs {
    Inputs {
        env: pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        ..Inputs::default()
    }
}

fn set(key: &str, value: &str, flag: &str) -> Override {
    Override {
        key: key.to_owned(),
        value: value.to_owned(),
        flag: flag.to_owned(),
    }
}

fn problems(result: Result<Config, Error>) -> Vec<Problem> {
    match result {
        Err(Error::Invalid(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// The one problem of a file.
#[track_caller]
fn problem(text: &str) -> String {
    let problems = problems(load_file(text));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].to_string()
}

#[track_caller]
fn assert_problem(text: &str, key: &str, says: &str) {
    let problem = problem(text);
    assert!(problem.starts_with(key), "{problem}");
    assert!(problem.contains(says), "{problem}");
}

const SHOP: &str = "[sources.shop]\nurl = 'postgres://reader:hunter2@db/shop'\n";

#[test]
fn without_a_file_the_defaults_of_one_machine_hold() {
    let config = load(Inputs::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.server.gateway_timeout, Duration::from_secs(60));
    assert!(
        matches!(&config.queue.url, QueueUrl::Sqlite(path) if path == &PathBuf::from("rowgate-data/queue.db"))
    );
    assert_eq!(config.queue.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.lease.ttl, Duration::from_secs(30));
    assert_eq!(config.storage.folder, PathBuf::from("rowgate-data/results"));
    assert_eq!(config.limits.memory_budget_bytes, 256 << 20);
    assert!(config.limits.transform_workers >= 1, "0 becomes the cores");
    assert_eq!(config.limits.source_slots[DEFAULT_KEY], 4);
    assert_eq!(config.limits.tenant_slots[DEFAULT_KEY], 8);
    assert_eq!(config.tenant_queued, 10_000);
    assert_eq!(config.inline_safety, 0.5);
    assert!(config.sources.is_empty());
}

#[test]
fn a_source_with_a_definition() {
    let config = load_file(
        r#"
        [sources.shop]
        url = "postgres://reader@db/shop"
        slots = 2
        statement_timeout = "5m"
        allow_tables = ["public.*"]
        [sources.shop.definitions.paid_orders]
        title = "Paid orders"
        sql = "select * from orders where is_paid and created_at >= :since and day = :day"
        params = { since = { type = "timestamp", required = true, description = "first moment, UTC" }, day = { type = "date", default = 2024-01-31 } }
        columns = [{ name = "id" }, { name = "email", expression = "mask_email(email)", header = "E-mail" }]
        filter = "amount > 0"
        [sources.archive]
        url = "sqlite://archive.db"
        "#,
    )
    .unwrap();
    let shop = &config.sources["shop"];
    assert_eq!(shop.url.expose_secret(), "postgres://reader@db/shop");
    assert_eq!(shop.statement_timeout, Duration::from_secs(300));
    assert_eq!(shop.allow_tables, ["public.*"]);
    assert!(!shop.allow_sql);
    let definition = &shop.definitions["paid_orders"];
    assert_eq!(definition.title, "Paid orders");
    assert!(definition.params["since"].required);
    assert_eq!(
        definition.params["day"].default,
        Some(serde_json::json!("2024-01-31"))
    );
    assert_eq!(definition.columns[1].header.as_deref(), Some("E-mail"));
    assert_eq!(definition.filter.as_deref(), Some("amount > 0"));
    // Only what was stated: the others follow the default when SetLimits changes it.
    assert_eq!(config.limits.source_slots.get("shop"), Some(&2));
    assert_eq!(config.limits.source_slots.get("archive"), None);
    assert_eq!(
        config.sources["archive"].slots,
        config.limits.source_slots[DEFAULT_KEY]
    );
}

#[test]
fn the_later_wins_file_then_environment_then_flags() {
    let (_dir, mut inputs) =
        file("[limits]\nworker_slots = 1\nbatch_rows = 1\nqueue_batches = 1\n");
    inputs.env = env(&[
        ("ROWGATE_LIMITS__WORKER_SLOTS", "2"),
        ("ROWGATE_LIMITS__BATCH_ROWS", "2"),
    ])
    .env;
    inputs.overrides = vec![set("limits.worker_slots", "3", "--worker-slots")];
    let limits = load(inputs).unwrap().limits;
    assert_eq!(
        (limits.worker_slots, limits.batch_rows, limits.queue_batches),
        (3, 2, 1)
    );
}

#[test]
fn the_environment_is_read_as_the_kinds_of_the_keys() {
    let config = load(env(&[
        ("ROWGATE_SERVER__SHUTDOWN_GRACE", "5s"),
        ("ROWGATE_SERVER__ROLES", "worker, api"),
        ("ROWGATE_LIMITS__QUEUE_BYTES", "1MiB"),
        ("ROWGATE_LIMITS__INLINE_SAFETY", "0.25"),
        ("ROWGATE_SOURCES__SHOP__URL", "sqlite://shop.db"),
        ("ROWGATE_SOURCES__SHOP__ALLOW_SQL", "true"),
        (
            "ROWGATE_SOURCES__SHOP__ALLOW_TABLES",
            r#"["orders", "a,b"]"#,
        ),
    ]))
    .unwrap();
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(5));
    assert_eq!(config.limits.queue_bytes, 1 << 20);
    assert_eq!(config.inline_safety, 0.25);
    assert!(config.sources["shop"].allow_sql);
    assert_eq!(config.sources["shop"].allow_tables, ["orders", "a,b"]);
}

#[test]
fn of_the_environment_only_our_names_are_read() {
    // What a Kubernetes Service named rowgate injects, and what the tests' harness exports.
    let config = load(env(&[
        ("ROWGATE_PORT", "tcp://10.0.0.1:50051"),
        ("ROWGATE_SERVICE_HOST", "10.0.0.1"),
        ("ROWGATE_TEST_DIR", "/tmp"),
        ("OTHER__LISTEN", "x"),
    ]));
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn rowgate_config_names_the_file_unless_a_flag_does() {
    let (_dir, inputs) = file("[limits]\nworker_slots = 1\n");
    let path = inputs.file.unwrap().display().to_string();
    let named = load(env(&[("ROWGATE_CONFIG", &path)])).unwrap();
    assert_eq!(named.limits.worker_slots, 1);

    let mut both = env(&[("ROWGATE_CONFIG", "/nonexistent")]);
    both.file = Some(PathBuf::from(path));
    assert_eq!(load(both).unwrap().limits.worker_slots, 1);

    let missing = load(env(&[("ROWGATE_CONFIG", "/nonexistent")])).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent"), "{missing}");
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line_and_without_its_text() {
    let error = load_file("[queue]\nurl = \"postgres://u:hunter2@h/d\n").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("rowgate.toml") && text.contains("line 2"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_problem(
        "[server]\nlistn = 'x'",
        "server.listn",
        "did you mean server.listen?",
    );
    assert_problem("[servers]\nlisten = 'x'", "servers", "did you mean server?");
    assert_problem(
        "[colour]\nx = 1",
        "colour",
        "server, queue, lease, storage, limits, sources",
    );
    assert_problem(
        &format!("{SHOP}alow_sql = true"),
        "sources.shop.alow_sql",
        "did you mean sources.shop.allow_sql?",
    );
    assert_problem(
        &format!("{SHOP}definitions.x.sql = 'select 1'\ndefinitions.x.titel = 'X'"),
        "sources.shop.definitions.x.titel",
        "did you mean sources.shop.definitions.x.title?",
    );
    assert_problem(
        &format!(
            "{SHOP}definitions.x.sql = 'select 1'\ndefinitions.x.params.a = {{ typ = 'text' }}"
        ),
        "sources.shop.definitions.x.params",
        "a: there is no key typ; did you mean type?",
    );
    assert_problem(
        &format!("{SHOP}definitions.x.sql = 'select 1'\ndefinitions.x.columns = [{{ nam = 'a' }}]"),
        "sources.shop.definitions.x.columns",
        "[0]: there is no key nam; did you mean name?",
    );
    let by_variable = problems(load(env(&[("ROWGATE_SERVER__LISTN", "x")])));
    assert_eq!(
        by_variable[0].origin.as_deref(),
        Some("ROWGATE_SERVER__LISTN")
    );
    assert!(by_variable[0].message.contains("server.listen"));
}

#[test]
fn what_does_not_exist_yet_is_refused_and_says_so() {
    for (text, key) in [
        ("[auth]\ntokens = []", "auth"),
        (
            "[server]\nadmin_listen = '127.0.0.1:1'",
            "server.admin_listen",
        ),
        ("[server.tls]\ncert = 'x'", "server.tls"),
        ("[storage]\nurl = 's3://bucket/prefix'", "storage.url"),
        ("[limits]\nautomatic = true", "limits.automatic"),
        (
            &format!("{SHOP}rows_per_second = 10"),
            "sources.shop.rows_per_second",
        ),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(key), "{problem}");
        assert!(problem.contains("yet"), "{problem}");
    }
    load_file(&format!(
        "{SHOP}rows_per_second = 0\n[limits]\nautomatic = false"
    ))
    .unwrap();
}

#[test]
fn binding_beyond_loopback_needs_insecure() {
    let open = "[server]\nlisten = '0.0.0.0:50051'\n";
    assert_problem(open, "server.listen", "--insecure");
    let (_dir, mut inputs) = file(open);
    inputs.overrides = vec![set("server.insecure", "true", "--insecure")];
    assert!(load(inputs).is_ok());
    for loopback in ["[::1]:0", "localhost:50051", "127.0.0.2:1"] {
        load_file(&format!("[server]\nlisten = '{loopback}'")).unwrap();
    }
}

#[test]
fn values_of_the_wrong_kind_say_what_would_be_right() {
    assert_problem(
        "[server]\nlisten = 'here'",
        "server.listen",
        "127.0.0.1:50051",
    );
    assert_problem(
        "[server]\nroles = ['api', 'boss']",
        "server.roles",
        "\"boss\" is no role",
    );
    assert_problem(
        "[server]\ngateway_timeout = 30",
        "server.gateway_timeout",
        "unit",
    );
    assert_problem(
        "[server]\ngateway_timeout = '30'",
        "server.gateway_timeout",
        "\"30s\"",
    );
    assert_problem(
        "[server]\ngateway_timeout = '0s'",
        "server.gateway_timeout",
        "out of range",
    );
    assert_problem(
        "[server]\ninsecure = 'yes'",
        "server.insecure",
        "true or false",
    );
    assert_problem(
        "[limits]\nworker_slots = 0",
        "limits.worker_slots",
        "from 1 to 10000",
    );
    assert_problem(
        "[limits]\nworker_slots = '4'",
        "limits.worker_slots",
        "whole number",
    );
    assert_problem(
        "[limits]\nworker_slots = -1",
        "limits.worker_slots",
        "whole number",
    );
    assert_problem(
        "[limits]\nmemory_budget = '1MiB'",
        "limits.memory_budget",
        "at least 16384 KiB",
    );
    assert_problem(
        "[limits]\nmemory_budget = 'lots'",
        "limits.memory_budget",
        "256MiB",
    );
    assert_problem(
        "[limits]\ninline_safety = 1.5",
        "limits.inline_safety",
        "up to 1",
    );
    assert_problem("[storage]\nttl = {}", "storage.ttl", "unit");
}

#[test]
fn sections_and_sources_of_the_wrong_kind_say_what_would_be_right() {
    assert_problem("server = 3", "server", "is a section");
    assert_problem("[queue]\nurl = 'mongodb://x'", "queue.url", "sqlite://PATH");
    assert_problem(
        "[queue]\nurl = 'postgres://db'",
        "queue.url",
        "names no database",
    );
    assert_problem(
        "[sources.shop]\nurl = 'shop.db'",
        "sources.shop.url",
        "sqlite://PATH",
    );
    assert_problem(&format!("{SHOP}slots = 0"), "sources.shop.slots", "from 1");
    assert_problem(
        &format!("{SHOP}allow_tables = ['']"),
        "sources.shop.allow_tables",
        "empty",
    );
    assert_problem(
        &format!(
            "{SHOP}definitions.x.sql = 'select 1'\ndefinitions.x.params.a = {{ type = 'strin' }}"
        ),
        "sources.shop.definitions.x.params",
        "a.type",
    );
    let by_variable = problems(load(env(&[("ROWGATE_LIMITS__WORKER_SLOTS", "many")])));
    assert!(
        by_variable[0].message.contains("whole number"),
        "{by_variable:?}"
    );
}

#[test]
fn keys_are_checked_against_each_other() {
    assert_problem(
        "[lease]\nttl = '10s'",
        "lease.renew_every",
        "lease.ttl - lease.margin",
    );
    assert_problem(
        "[lease]\nmargin = '40s'",
        "lease.renew_every",
        "lease.margin",
    );
    assert_problem(
        "[lease]\nlock_backoff_min = '2s'",
        "lease.lock_backoff_min",
        "lease.lock_backoff_max",
    );
    assert_problem("[lease]\nca_file = 'ca.pem'", "lease.ca_file", "rediss://");
    assert_problem(
        "[queue]\nbackoff_min = '10m'",
        "queue.backoff_min",
        "queue.backoff_max",
    );
    assert_problem(
        "[queue]\nretention = '1h'",
        "queue.retention",
        "storage.ttl",
    );
    assert_problem(
        "[limits]\nqueue_bytes = '1GiB'",
        "limits.queue_bytes",
        "limits.memory_budget",
    );
    assert_problem(
        "[storage]\nurl = 'file://rowgate-data'",
        "storage.url",
        "a folder of their own",
    );
}

#[test]
fn names_are_small_and_required_keys_required() {
    assert_problem(
        "[sources.Shop]\nurl = 'sqlite://x.db'",
        "sources.Shop",
        "small letters",
    );
    assert_problem(
        "[sources.'a.b']\nurl = 'sqlite://x.db'",
        "sources.a.b",
        "small letters",
    );
    assert_problem("[sources.shop]", "sources.shop.url", "is missing");
    assert_problem(
        "[sources.shop]\nslots = 2",
        "sources.shop.url",
        "is missing",
    );
    assert_problem(
        &format!("{SHOP}definitions.x.title = 'X'"),
        "sources.shop.definitions.x.sql",
        "is missing",
    );
    assert_problem(
        &format!("{SHOP}[sources.shop.definitions.x]"),
        "sources.shop.definitions.x.sql",
        "is missing",
    );
}

#[test]
fn a_command_to_redis_takes_no_more_than_a_tenth_of_the_ttl() {
    let lease = |text| load_file(text).unwrap().lease.command_timeout;
    assert_eq!(lease(""), Duration::from_secs(1));
    let short = "[lease]\nttl = '5s'\nrenew_every = '1s'";
    assert_eq!(lease(short), Duration::from_millis(500));
    assert_eq!(
        lease("[lease]\ncommand_timeout = '50ms'"),
        Duration::from_millis(50)
    );
}

#[test]
fn all_problems_are_listed_at_once() {
    let problems = problems(load_file(
        "[server]\nlisten = 'x'\nnope = 1\n[lease]\nurl = 'redis://'\n[sources.shop]",
    ));
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "server.nope",
            "server.listen",
            "lease.url",
            "sources.shop.url"
        ]
    );
}

#[test]
fn secrets_come_from_variables_and_files() {
    let (dir, mut inputs) = file("");
    let secret = dir.path().join("secret");
    fs::write(&secret, "postgres://u:from-file@db/shop\n").unwrap();
    fs::write(
        inputs.file.as_ref().unwrap(),
        format!(
            "[sources.one]\nurl = {{ env = 'SHOP_URL' }}\n[sources.two]\nurl = {{ file = '{}' }}\n",
            secret.display()
        ),
    )
    .unwrap();
    inputs.env = env(&[
        ("SHOP_URL", "postgres://u:from-env@db/shop"),
        (
            "ROWGATE_SOURCES__THREE__URL__FILE",
            &secret.display().to_string(),
        ),
    ])
    .env;
    let config = load(inputs).unwrap();
    let url = |name: &str| config.sources[name].url.expose_secret().to_owned();
    assert_eq!(url("one"), "postgres://u:from-env@db/shop");
    assert_eq!(url("two"), "postgres://u:from-file@db/shop");
    assert_eq!(url("three"), url("two"));

    let shown = config.show();
    assert!(!shown.contains("from-"), "{shown}");
    assert!(shown.contains("variable SHOP_URL"), "{shown}");
}

#[test]
fn a_secret_that_is_not_there_is_one_problem() {
    assert_problem(
        "[sources.shop]\nurl = { env = 'NOWHERE' }",
        "sources.shop.url",
        "no variable NOWHERE",
    );
    assert_problem(
        "[sources.shop]\nurl = { file = '/nonexistent' }",
        "sources.shop.url",
        "/nonexistent",
    );
    assert_problem(
        "[sources.shop]\nurl = { vault = 'x' }",
        "sources.shop.url",
        "{ env = \"NAME\" }",
    );
}

#[test]
fn what_is_shown_loads_again_and_keeps_secrets() {
    let (_dir, mut inputs) = file(&format!(
        "{SHOP}[sources.shop.definitions.x]\nsql = '''\nselect \"a\\\\b\"\n\tfrom t where a = any(:a)'''\n\
         params = {{ a = {{ type = 'int64[]', default = [1, 2] }} }}\ncolumns = [{{ name = 'a', width = 3.5 }}]\n"
    ));
    inputs.env = env(&[("ROWGATE_LIMITS__WORKER_SLOTS", "2")]).env;
    let config = load(inputs).unwrap();
    let shown = config.show();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("reader:***@db"), "{shown}");
    assert!(
        shown.contains("worker_slots = 2  # ROWGATE_LIMITS__WORKER_SLOTS\n"),
        "{shown}"
    );
    assert!(shown.contains("listen = \"127.0.0.1:50051\"\n"), "{shown}");
    assert!(
        !format!("{config:?}").contains("hunter2"),
        "Debug keeps secrets too"
    );

    let again = load_file(&shown).unwrap();
    assert_eq!(again.limits, {
        let mut limits = config.limits.clone();
        // The default, written down, has become the source's own.
        limits.source_slots.insert("shop".to_owned(), 4);
        limits
    });
    let (before, after) = (
        &config.sources["shop"].definitions["x"],
        &again.sources["shop"].definitions["x"],
    );
    assert_eq!(before.sql, after.sql);
    assert_eq!(before.columns, after.columns);
    assert_eq!(before.params["a"].default, after.params["a"].default);
}

/// The table of keys is right in itself: every default passes its own rules.
#[test]
fn every_key_is_shown_with_its_default() {
    let shown = load(Inputs::default()).unwrap().show();
    for key in keys::KEYS.iter().filter(|key| !key.path.contains('*')) {
        let default = match key.default {
            keys::Default::Toml(default) => default,
            keys::Default::Absent => continue,
            keys::Default::Required => panic!("{} has no default", key.path),
        };
        let name = key.path.rsplit('.').next().unwrap();
        assert!(
            shown.contains(&format!("{name} = {default}\n")),
            "{} in {shown}",
            key.path
        );
    }
}
