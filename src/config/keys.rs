//! Every key there is: its kind, its default, and the ones that belong to parts that don't exist yet. Loading, checking,
//! `config show` and the test of docs/configuration.md all go by this table.

/// What a key's value has to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Kind {
    Text,
    /// Text, `{ env = "NAME" }` or `{ file = "PATH" }`; a URL whose password is masked when it is shown.
    Secret,
    /// `"30s"`, `"10m"`, `"7d"`.
    Duration {
        min_ms: u64,
    },
    /// `"256MiB"`, or a number of bytes.
    Size {
        min_bytes: u64,
    },
    Count {
        min: u64,
        max: u64,
    },
    /// Above 0, up to 1.
    Fraction,
    Switch,
    Texts,
    /// `{ since = { type = "timestamp", required = true, … } }`
    Params,
    /// As in a request.
    Columns,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Default {
    /// As it would be written in the file.
    Toml(&'static str),
    Required,
    Absent,
}

/// One key. `*` in the path stands for a name that the operator gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub path: &'static str,
    pub kind: Kind,
    pub default: Default,
}

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Default::Toml(default),
    }
}

const fn required(path: &'static str, kind: Kind) -> Key {
    Key {
        path,
        kind,
        default: Default::Required,
    }
}

const fn duration(min_ms: u64) -> Kind {
    Kind::Duration { min_ms }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// In the order in which `config show` prints them.
pub(super) const KEYS: &[Key] = &[
    key("server.listen", Kind::Text, r#""127.0.0.1:50051""#),
    key("server.roles", Kind::Texts, r#"["api", "worker"]"#),
    key("server.gateway_timeout", duration(1), r#""60s""#),
    key("server.shutdown_grace", duration(0), r#""30s""#),
    key("server.stream_idle_timeout", duration(1), r#""10m""#),
    key("server.insecure", Kind::Switch, "false"),
    key(
        "queue.url",
        Kind::Secret,
        r#""sqlite://rowgate-data/queue.db""#,
    ),
    key("queue.poll_interval", duration(1), r#""2s""#),
    key("queue.max_attempts", count(1, 100), "3"),
    key("queue.backoff_min", duration(1), r#""1s""#),
    key("queue.backoff_max", duration(1), r#""5m""#),
    key("queue.retention", duration(1), r#""7d""#),
    key("lease.url", Kind::Secret, r#""local""#),
    Key {
        path: "lease.ca_file",
        kind: Kind::Text,
        default: Default::Absent,
    },
    key("lease.ttl", duration(100), r#""30s""#),
    key("lease.renew_every", duration(10), r#""10s""#),
    key("lease.margin", duration(0), r#""1s""#),
    key("lease.command_timeout", duration(1), r#""1s""#),
    key("lease.lock_backoff_min", duration(1), r#""20ms""#),
    key("lease.lock_backoff_max", duration(1), r#""1s""#),
    key(
        "storage.url",
        Kind::Text,
        r#""file://rowgate-data/results""#,
    ),
    key("storage.ttl", duration(1), r#""24h""#),
    key(
        "limits.memory_budget",
        Kind::Size {
            min_bytes: 16 * MIB,
        },
        r#""256MiB""#,
    ),
    key(
        "limits.queue_bytes",
        Kind::Size {
            min_bytes: 64 * KIB,
        },
        r#""16MiB""#,
    ),
    key("limits.queue_batches", count(1, 100_000), "16"),
    key("limits.batch_rows", count(1, 1_000_000), "4096"),
    key("limits.transform_workers", count(0, 1024), "0"),
    key("limits.worker_slots", count(1, 10_000), "4"),
    key("limits.inline_slots", count(0, 10_000), "4"),
    key("limits.stream_slots", count(1, 100_000), "64"),
    key("limits.tenant_slots", count(1, 100_000), "8"),
    key("limits.tenant_queued", count(1, 1_000_000_000), "10000"),
    key("limits.inline_safety", Kind::Fraction, "0.5"),
    key("limits.automatic", Kind::Switch, "false"),
    required("sources.*.url", Kind::Secret),
    key("sources.*.slots", count(1, 100_000), "4"),
    key("sources.*.rows_per_second", count(0, u64::MAX), "0"),
    key(
        "sources.*.expected_rows_per_second",
        count(1, u64::MAX),
        "50000",
    ),
    key("sources.*.statement_timeout", duration(1), r#""30m""#),
    key("sources.*.allow_tables", Kind::Texts, "[]"),
    key("sources.*.allow_sql", Kind::Switch, "false"),
    key("sources.*.definitions.*.title", Kind::Text, r#""""#),
    required("sources.*.definitions.*.sql", Kind::Text),
    key("sources.*.definitions.*.params", Kind::Params, "{}"),
    key("sources.*.definitions.*.columns", Kind::Columns, "[]"),
    Key {
        path: "sources.*.definitions.*.filter",
        kind: Kind::Text,
        default: Default::Absent,
    },
];

/// What may stand in one parameter of a definition, and in one column.
pub(super) const PARAM_KEYS: &[&str] = &["type", "required", "description", "default"];
pub(super) const COLUMN_KEYS: &[&str] = &["name", "expression", "header", "number_format", "width"];

/// Keys and sections of parts that later releases bring: refused, not ignored. A prefix covers what is below it.
pub(super) const NOT_YET: &[(&str, &str)] = &[
    (
        "auth",
        "there is no authentication yet: every caller is the tenant `default`",
    ),
    (
        "tenants",
        "there is no authentication yet: every caller is the tenant `default`",
    ),
    (
        "telemetry",
        "traces and metrics are not exported yet: logs go to stderr",
    ),
    (
        "server.admin_listen",
        "there is no admin port yet: ask grpc.health.v1 at server.listen for health",
    ),
    ("server.tls", "there is no TLS yet"),
];

/// The key that a path means, `*` matching any name.
pub(super) fn find(path: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|key| matches(key.path, path))
}

/// Whether some key lies below the path: it is a section or a table of names.
pub(super) fn is_section(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let pattern: Vec<&str> = key.path.split('.').collect();
        pattern.len() > path.len() && segments_match(&pattern[..path.len()], path)
    })
}

pub(super) fn not_yet(path: &[String]) -> Option<&'static str> {
    NOT_YET
        .iter()
        .find(|(prefix, _)| {
            let prefix: Vec<&str> = prefix.split('.').collect();
            path.len() >= prefix.len() && segments_match(&prefix, &path[..prefix.len()])
        })
        .map(|(_, reason)| *reason)
}

/// What may follow a section's path: for naming the nearest.
pub(super) fn children(path: &[String]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = KEYS
        .iter()
        .filter_map(|key| {
            let pattern: Vec<&'static str> = key.path.split('.').collect();
            let matches =
                pattern.len() > path.len() && segments_match(&pattern[..path.len()], path);
            matches.then(|| pattern[path.len()])
        })
        .filter(|name| *name != "*")
        .collect();
    names.dedup();
    names
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    pattern.len() == path.len() && segments_match(&pattern, path)
}

fn segments_match(pattern: &[&str], path: &[String]) -> bool {
    pattern
        .iter()
        .zip(path)
        .all(|(pattern, segment)| *pattern == "*" || pattern == segment)
}
