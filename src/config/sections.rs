//! Builds the typed sections, then checks what holds between keys.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZero, path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{
    Config, Error, Lease, LeaseUrl, Problem, Queue, QueueUrl, Roles, Server, Storage,
    keys::{COLUMN_KEYS, PARAM_KEYS},
    load::FoundByPath,
    read::Reader,
    urls,
};
use crate::{
    export::{Limits, limits::DEFAULT_KEY},
    source::{Catalog, DefinitionOptions, SourceOptions},
};

const NAME_BYTES_MAX: usize = 63;
/// The planner answers within this, or AUTO queues: a caller waits for it.
const ESTIMATE_PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn build(found: FoundByPath, problems: Vec<Problem>) -> Result<Config, Error> {
    let mut read = Reader::new(found, problems);
    // All of them, before any is missed: each notes its own problems.
    let server = server(&mut read);
    let queue = queue(&mut read);
    let lease = lease(&mut read);
    let storage = storage(&mut read);
    let limits = limits(&mut read);
    let sources = sources(&mut read);
    let (
        Some(server),
        Some(queue),
        Some(lease),
        Some(storage),
        Some((limits, inline_safety, tenant_queued)),
        Some(sources),
        [],
    ) = (
        server,
        queue,
        lease,
        storage,
        limits,
        sources,
        read.problems.as_slice(),
    )
    else {
        return Err(Error::Invalid(read.problems));
    };
    let mut config = Config {
        server,
        queue,
        lease,
        storage,
        limits,
        inline_safety,
        tenant_queued,
        estimate_patience: ESTIMATE_PATIENCE,
        sources,
        shown: Vec::new(),
    };
    for (name, source) in &config.sources {
        if read.is_written(&["sources", name, "slots"]) {
            config
                .limits
                .source_slots
                .insert(name.clone(), source.slots);
        }
    }
    check_together(&mut read, &config);
    if read.problems.is_empty() {
        config.shown = read.shown;
        Ok(config)
    } else {
        Err(Error::Invalid(read.problems))
    }
}

fn server(read: &mut Reader) -> Option<Server> {
    let listen = listen(read);
    let roles = roles(read);
    let gateway_timeout = read.duration(&["server", "gateway_timeout"]);
    let shutdown_grace = read.duration(&["server", "shutdown_grace"]);
    let stream_idle_timeout = read.duration(&["server", "stream_idle_timeout"]);
    let insecure = read.switch(&["server", "insecure"]);
    if let (Some(listen), Some(false)) = (listen, insecure)
        && !listen.ip().is_loopback()
    {
        read.reject(
            &["server", "listen"],
            format!(
                "{listen} lets other machines in, and there is no authentication yet: listen on 127.0.0.1, or say \
                 --insecure (server.insecure = true) where the network itself keeps others out"
            ),
        );
    }
    Some(Server {
        listen: listen?,
        roles: roles?,
        gateway_timeout: gateway_timeout?,
        shutdown_grace: shutdown_grace?,
        stream_idle_timeout: stream_idle_timeout?,
    })
}

fn listen(read: &mut Reader) -> Option<SocketAddr> {
    let key = ["server", "listen"];
    let text = read.text(&key)?;
    let parsed = text
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse()
        .map_err(|_| format!("{text:?} is no address: write IP:PORT, like \"127.0.0.1:50051\""));
    read.check(&key, parsed)
}

fn roles(read: &mut Reader) -> Option<Roles> {
    let key = ["server", "roles"];
    let names = read.texts(&key)?;
    if let Some(other) = names
        .iter()
        .find(|role| !matches!(role.as_str(), "api" | "worker"))
    {
        read.reject(
            &key,
            format!("{other:?} is no role: there are \"api\" and \"worker\""),
        );
        return None;
    }
    if names.is_empty() {
        read.reject(&key, "a process needs a role: \"api\", \"worker\" or both");
        return None;
    }
    let has = |role: &str| names.iter().any(|name| name == role);
    Some(Roles {
        api: has("api"),
        worker: has("worker"),
    })
}

fn queue(read: &mut Reader) -> Option<Queue> {
    let url = url(read, &["queue", "url"], urls::queue);
    let poll_interval = read.duration(&["queue", "poll_interval"]);
    let max_attempts = read.count(&["queue", "max_attempts"]);
    let backoff_min = read.duration(&["queue", "backoff_min"]);
    let backoff_max = read.duration(&["queue", "backoff_max"]);
    let retention = read.duration(&["queue", "retention"]);
    Some(Queue {
        url: url?,
        poll_interval: poll_interval?,
        max_attempts: max_attempts?,
        backoff_min: backoff_min?,
        backoff_max: backoff_max?,
        retention: retention?,
    })
}

fn lease(read: &mut Reader) -> Option<Lease> {
    let url = url(read, &["lease", "url"], urls::lease);
    let ca_file = read.text(&["lease", "ca_file"]);
    let ttl = read.duration(&["lease", "ttl"]);
    let renew_every = read.duration(&["lease", "renew_every"]);
    let margin = read.duration(&["lease", "margin"]);
    let command_timeout = read.duration(&["lease", "command_timeout"]);
    let lock_backoff_min = read.duration(&["lease", "lock_backoff_min"]);
    let lock_backoff_max = read.duration(&["lease", "lock_backoff_max"]);
    let ttl = ttl?;
    Some(Lease {
        url: url?,
        ca_file: ca_file.map(PathBuf::from),
        ttl,
        renew_every: renew_every?,
        margin: margin?,
        // A command that hangs must leave time for others before the lease ends.
        command_timeout: command_timeout?.min(ttl / 10),
        lock_backoff_min: lock_backoff_min?,
        lock_backoff_max: lock_backoff_max?,
    })
}

fn storage(read: &mut Reader) -> Option<Storage> {
    let key = ["storage", "url"];
    let folder = read
        .text(&key)
        .and_then(|text| read.check(&key, urls::storage(&text)));
    let ttl = read.duration(&["storage", "ttl"]);
    Some(Storage {
        folder: folder?,
        ttl: ttl?,
    })
}

/// With `inline_safety` and `tenant_queued`, which can't be changed at run time.
fn limits(read: &mut Reader) -> Option<(Limits, f64, u32)> {
    let memory_budget_bytes = read.size(&["limits", "memory_budget"]);
    let queue_bytes = read.size(&["limits", "queue_bytes"]);
    let queue_batches = read.count(&["limits", "queue_batches"]);
    let batch_rows = read.count(&["limits", "batch_rows"]);
    let transform_workers = read.count(&["limits", "transform_workers"]);
    let worker_slots = read.count(&["limits", "worker_slots"]);
    let inline_slots = read.count(&["limits", "inline_slots"]);
    let stream_slots = read.count(&["limits", "stream_slots"]);
    let tenant_slots = read.count(&["limits", "tenant_slots"]);
    let tenant_queued = read.count(&["limits", "tenant_queued"]);
    let inline_safety = read.fraction(&["limits", "inline_safety"]);
    if read.switch(&["limits", "automatic"]) == Some(true) {
        read.reject(
            &["limits", "automatic"],
            "limits that size themselves are not there yet: remove the key or write false",
        );
    }
    let limits = Limits {
        memory_budget_bytes: memory_budget_bytes?,
        queue_bytes: queue_bytes?,
        queue_batches: queue_batches?,
        batch_rows: batch_rows?,
        transform_workers: match transform_workers? {
            0 => cores(),
            workers => workers,
        },
        worker_slots: worker_slots?,
        inline_slots: inline_slots?,
        stream_slots: stream_slots?,
        source_slots: BTreeMap::from([(DEFAULT_KEY.to_owned(), SOURCE_SLOTS)]),
        tenant_slots: BTreeMap::from([(DEFAULT_KEY.to_owned(), tenant_slots?)]),
    };
    Some((limits, inline_safety?, tenant_queued?))
}

/// For sources that state none; keys.rs says the same of `sources.*.slots`.
const SOURCE_SLOTS: u32 = 4;

fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

fn sources(read: &mut Reader) -> Option<BTreeMap<String, SourceOptions>> {
    let mut sources = Some(BTreeMap::new());
    for name in read.names(&["sources"]) {
        if let Err(message) = check_name(&name) {
            read.reject(&["sources", &name], message);
        }
        let built = source(read, &name);
        if let Some(options) = &built {
            try_catalog(read, &name, options);
        }
        match (built, &mut sources) {
            (Some(source), Some(sources)) => {
                sources.insert(name, source);
            }
            (_, sources) => *sources = None,
        }
    }
    sources
}

/// What the catalog would refuse at the start is said with everything else, also by `config check`.
fn try_catalog(read: &mut Reader, name: &str, options: &SourceOptions) {
    let alone = BTreeMap::from([(name.to_owned(), options.clone())]);
    for invalid in Catalog::new(alone).err().into_iter().flatten() {
        let key: Vec<_> = invalid.key.split('.').collect();
        read.reject(&key, invalid.message);
    }
}

fn source(read: &mut Reader, name: &str) -> Option<SourceOptions> {
    let url = url(read, &["sources", name, "url"], |secret| {
        urls::source(secret).map(|()| secret.clone())
    });
    let slots = read.count(&["sources", name, "slots"]);
    let speed_limit = ["sources", name, "rows_per_second"];
    if read.count::<u64>(&speed_limit).is_some_and(|rows| rows > 0) {
        read.reject(
            &speed_limit,
            "speed limits are not there yet: remove the key or write 0",
        );
    }
    let expected_rows_per_second = read.count(&["sources", name, "expected_rows_per_second"]);
    let statement_timeout = read.duration(&["sources", name, "statement_timeout"]);
    let allow_tables = read.texts(&["sources", name, "allow_tables"]);
    if allow_tables
        .iter()
        .flatten()
        .any(|pattern| pattern.trim().is_empty())
    {
        read.reject(
            &["sources", name, "allow_tables"],
            "an empty pattern matches nothing: write \"public.*\", \"orders\", or an empty list",
        );
    }
    let allow_sql = read.switch(&["sources", name, "allow_sql"]);
    let definitions = definitions(read, name);
    Some(SourceOptions {
        url: url?,
        slots: slots?,
        expected_rows_per_second: expected_rows_per_second?,
        statement_timeout: statement_timeout?,
        allow_tables: allow_tables?,
        allow_sql: allow_sql?,
        definitions: definitions?,
    })
}

fn definitions(read: &mut Reader, source: &str) -> Option<BTreeMap<String, DefinitionOptions>> {
    let mut definitions = Some(BTreeMap::new());
    for name in read.names(&["sources", source, "definitions"]) {
        if let Err(message) = check_name(&name) {
            read.reject(&["sources", source, "definitions", &name], message);
        }
        match (definition(read, source, &name), &mut definitions) {
            (Some(definition), Some(definitions)) => {
                definitions.insert(name, definition);
            }
            (_, definitions) => *definitions = None,
        }
    }
    definitions
}

fn definition(read: &mut Reader, source: &str, name: &str) -> Option<DefinitionOptions> {
    let key = |last| ["sources", source, "definitions", name, last];
    let title = read.text(&key("title"));
    let sql = read.text(&key("sql"));
    let params = read.shape(&key("params"), PARAM_KEYS);
    let columns = read.shape(&key("columns"), COLUMN_KEYS);
    let filter = read.text(&key("filter"));
    Some(DefinitionOptions {
        title: title?,
        sql: sql?,
        params: params?,
        columns: columns?,
        filter,
    })
}

fn url<T>(
    read: &mut Reader,
    key: &[&str],
    parse: impl Fn(&SecretString) -> Result<T, String>,
) -> Option<T> {
    let secret = read.secret(key)?;
    let parsed = parse(&secret);
    read.check(key, parsed)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_right = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
        });
    if is_right {
        Ok(())
    } else {
        Err(format!(
            "{name:?} can't be a name: small letters, digits, _ and -, at most {NAME_BYTES_MAX}"
        ))
    }
}

/// What no key can be checked for alone.
fn check_together(read: &mut Reader, config: &Config) {
    let Config {
        queue,
        lease,
        limits,
        ..
    } = config;
    let text = |duration: Duration| humantime::format_duration(duration).to_string();
    if lease.renew_every >= lease.ttl.saturating_sub(lease.margin) {
        read.reject(
            &["lease", "renew_every"],
            format!(
                "{} must be less than lease.ttl - lease.margin ({} - {}): trust would end before the first renewal; a \
                 third of the ttl is a good choice",
                text(lease.renew_every),
                text(lease.ttl),
                text(lease.margin)
            ),
        );
    }
    if lease.lock_backoff_min > lease.lock_backoff_max {
        read.reject(
            &["lease", "lock_backoff_min"],
            format!(
                "{} is more than lease.lock_backoff_max, {}",
                text(lease.lock_backoff_min),
                text(lease.lock_backoff_max)
            ),
        );
    }
    let roles = config.server.roles;
    if matches!(lease.url, LeaseUrl::Local) && !(roles.api && roles.worker) {
        read.reject(
            &["server", "roles"],
            "with lease.url = \"local\" this process is the only one of its queue and needs both roles: write \
             [\"api\", \"worker\"], or give lease.url a Redis",
        );
    }
    if lease.ca_file.is_some() && !lease.url.is_tls() {
        read.reject(
            &["lease", "ca_file"],
            "is for TLS: write lease.url as rediss://…, or remove it",
        );
    }
    if queue.backoff_min > queue.backoff_max {
        read.reject(
            &["queue", "backoff_min"],
            format!(
                "{} is more than queue.backoff_max, {}",
                text(queue.backoff_min),
                text(queue.backoff_max)
            ),
        );
    }
    if queue.retention < config.storage.ttl {
        read.reject(
            &["queue", "retention"],
            format!(
                "{} is less than storage.ttl, {}: a job's row outlives its result",
                text(queue.retention),
                text(config.storage.ttl)
            ),
        );
    }
    if limits.queue_bytes > limits.memory_budget_bytes {
        read.reject(
            &["limits", "queue_bytes"],
            format!(
                "{} bytes are more than limits.memory_budget, {}: all queues share that budget",
                limits.queue_bytes, limits.memory_budget_bytes
            ),
        );
    }
    if let QueueUrl::Sqlite(path) = &queue.url
        && path.starts_with(&config.storage.folder)
    {
        read.reject(
            &["storage", "url"],
            "the queue's file lies in the folder of the results: give the results a folder of their own",
        );
    }
}
