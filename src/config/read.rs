//! Reads gathered values as what their keys want, and remembers every problem instead of stopping at the first.

use std::{str::FromStr, time::Duration};

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use toml::Value;

use super::{
    Problem,
    keys::{self, Default, Kind},
    load::{Found, FoundByPath},
    nearest::nearest,
    show, units, urls,
};

/// Nothing lasts longer; it also keeps sums of durations from overflowing.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(super) struct Reader {
    found: FoundByPath,
    pub problems: Vec<Problem>,
    pub shown: Vec<show::Line>,
}

impl Reader {
    pub fn new(found: FoundByPath, problems: Vec<Problem>) -> Self {
        Self {
            found,
            problems,
            shown: Vec::new(),
        }
    }

    /// The names below a path, such as those of the sources.
    pub fn names(&self, path: &[&str]) -> Vec<String> {
        let mut names: Vec<String> = self
            .found
            .keys()
            .filter(|key| key.len() > path.len() && key.iter().zip(path).all(|(a, b)| a == b))
            .map(|key| key[path.len()].clone())
            .collect();
        names.dedup();
        names
    }

    /// Whether somebody wrote the key.
    pub fn is_written(&self, path: &[&str]) -> bool {
        self.found.contains_key(&owned(path))
    }

    /// `None` after a problem has been noted, or for a key without value and default.
    pub fn text(&mut self, path: &[&str]) -> Option<String> {
        self.read(path, |value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong(other, "text in quotes is needed")),
        })
    }

    /// Messages never repeat what stands there.
    pub fn secret(&mut self, path: &[&str]) -> Option<SecretString> {
        self.read(path, |value| match value {
            Value::String(text) => Ok(SecretString::from(text.clone())),
            _ => Err(
                "text in quotes, { env = \"NAME\" } or { file = \"PATH\" } is needed".to_owned(),
            ),
        })
    }

    pub fn switch(&mut self, path: &[&str]) -> Option<bool> {
        self.read(path, |value| {
            value
                .as_bool()
                .ok_or_else(|| wrong(value, "true or false is needed"))
        })
    }

    pub fn texts(&mut self, path: &[&str]) -> Option<Vec<String>> {
        self.read(path, |value| {
            value
                .as_array()
                .and_then(|list| {
                    list.iter()
                        .map(|item| item.as_str().map(str::to_owned))
                        .collect()
                })
                .ok_or_else(|| wrong(value, "a list of texts is needed, like [\"a\", \"b\"]"))
        })
    }

    pub fn duration(&mut self, path: &[&str]) -> Option<Duration> {
        let Kind::Duration { min_ms } = kind(path) else {
            unreachable!("{path:?} is a duration in keys.rs");
        };
        let min = Duration::from_millis(min_ms);
        self.read(path, |value| {
            let text = value.as_str().ok_or_else(|| {
                wrong(value, "a duration needs its unit: \"30s\", \"10m\", \"7d\"")
            })?;
            let duration = units::parse_duration(text)?;
            if duration < min || duration > DURATION_MAX {
                return Err(format!(
                    "{text} is out of range: from {} to ten years",
                    humantime::format_duration(min)
                ));
            }
            Ok(duration)
        })
    }

    /// In bytes.
    pub fn size(&mut self, path: &[&str]) -> Option<u64> {
        let Kind::Size { min_bytes } = kind(path) else {
            unreachable!("{path:?} is a size in keys.rs");
        };
        self.read(path, |value| {
            let bytes = match value {
                Value::Integer(bytes) => {
                    u64::try_from(*bytes).map_err(|_| "a size can't be negative".to_owned())?
                }
                Value::String(text) => units::parse_size(text)?,
                other => return Err(wrong(other, "a size is needed, like \"256MiB\"")),
            };
            if bytes < min_bytes {
                return Err(format!(
                    "{bytes} bytes are too few: at least {} KiB",
                    min_bytes / 1024
                ));
            }
            Ok(bytes)
        })
    }

    pub fn count<N: TryFrom<u64>>(&mut self, path: &[&str]) -> Option<N> {
        let Kind::Count { min, max } = kind(path) else {
            unreachable!("{path:?} is a count in keys.rs");
        };
        self.read(path, |value| {
            let needed = match max {
                u64::MAX => format!("a whole number from {min} on is needed"),
                max => format!("a whole number from {min} to {max} is needed"),
            };
            value
                .as_integer()
                .and_then(|number| u64::try_from(number).ok())
                .filter(|number| (min..=max).contains(number))
                .and_then(|number| N::try_from(number).ok())
                .ok_or_else(|| wrong(value, &needed))
        })
    }

    pub fn fraction(&mut self, path: &[&str]) -> Option<f64> {
        self.read(path, |value| {
            let number = match value {
                Value::Integer(1) => Some(1.0),
                other => other.as_float(),
            };
            number
                .filter(|number| *number > 0.0 && *number <= 1.0)
                .ok_or_else(|| wrong(value, "a number above 0, up to 1, is needed"))
        })
    }

    /// A table or list whose shape serde knows; `known` are the names inside each of its tables.
    pub fn shape<T: DeserializeOwned>(&mut self, path: &[&str], known: &[&str]) -> Option<T> {
        self.read(path, |value| {
            check_names(value, known)?;
            serde_path_to_error::deserialize(without_dates(value.clone())).map_err(|error| {
                let (at, what) = (error.path().to_string(), error.inner().message().to_owned());
                if at == "." {
                    what
                } else {
                    format!("{at}: {what}")
                }
            })
        })
    }

    /// Notes that a value, itself well formed, can't be.
    pub fn reject(&mut self, path: &[&str], message: impl Into<String>) {
        // What is within a value, such as one of a definition's parameters, stands where that value does.
        let written = (1..=path.len())
            .rev()
            .find_map(|depth| self.found.get(&owned(&path[..depth])));
        self.problems.push(Problem {
            key: path.join("."),
            origin: written.map(|found| found.origin.clone()),
            message: message.into(),
        });
    }

    /// Passes a value on, or notes what is wrong with it.
    pub fn check<T>(&mut self, path: &[&str], result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.reject(path, message)).ok()
    }

    fn read<T>(&mut self, path: &[&str], parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let key = keys::find(&owned(path)).expect("sections.rs reads only keys of keys.rs");
        let written = self.found.get(&owned(path)).cloned();
        let is_declared_only = key.default == Default::Required
            && written
                .as_ref()
                .is_some_and(|found| found.value.as_table().is_some_and(toml::Table::is_empty));
        let value = match (&written, key.default) {
            (Some(found), _) if !is_declared_only => typed(found, key.kind),
            (_, Default::Toml(text)) => Ok(parse_toml(text).expect("defaults in keys.rs are TOML")),
            (_, Default::Absent) => return None,
            (_, Default::Required) => {
                // A secret that could not be read has been noted already, and is written nowhere any more.
                let is_noted = self
                    .problems
                    .iter()
                    .any(|problem| problem.key == path.join("."));
                if !is_noted {
                    self.reject(path, "is missing");
                }
                return None;
            }
        };
        let parsed = value.and_then(|value| parse(&value).map(|parsed| (parsed, value)));
        match parsed {
            Ok((parsed, value)) => {
                self.shown.push(show::Line {
                    path: owned(path),
                    value: show_value(value, key.kind),
                    origin: written.map(|found| found.origin),
                });
                Some(parsed)
            }
            Err(message) => {
                self.reject(path, message);
                None
            }
        }
    }
}

fn kind(path: &[&str]) -> Kind {
    keys::find(&owned(path))
        .expect("sections.rs reads only keys of keys.rs")
        .kind
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&segment| segment.to_owned()).collect()
}

fn show_value(value: Value, kind: Kind) -> Value {
    match (value, kind) {
        (Value::String(text), Kind::Secret) => Value::String(urls::masked(&text)),
        (value, _) => value,
    }
}

/// Text of the environment and of flags, read as the key's kind wants it.
fn typed(found: &Found, kind: Kind) -> Result<Value, String> {
    let Value::String(text) = &found.value else {
        return Ok(found.value.clone());
    };
    if !found.is_untyped {
        return Ok(found.value.clone());
    }
    match kind {
        Kind::Text | Kind::Secret | Kind::Duration { .. } | Kind::Size { .. } => {
            Ok(found.value.clone())
        }
        Kind::Count { .. } => parsed::<i64>(text).map_or(Ok(found.value.clone()), |n| Ok(n.into())),
        Kind::Fraction => parsed::<f64>(text).map_or(Ok(found.value.clone()), |n| Ok(n.into())),
        Kind::Switch => parsed::<bool>(text).map_or(Ok(found.value.clone()), |b| Ok(b.into())),
        Kind::Texts if !text.trim_start().starts_with('[') => Ok(text
            .split(',')
            .map(|item| Value::String(item.trim().to_owned()))
            .collect::<Vec<_>>()
            .into()),
        Kind::Texts | Kind::Params | Kind::Columns => parse_toml(text),
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn parse_toml(text: &str) -> Result<Value, String> {
    let table: toml::Table = format!("value = {text}")
        .parse()
        .map_err(|error: toml::de::Error| format!("is not TOML: {}", error.message()))?;
    table
        .get("value")
        .cloned()
        .ok_or_else(|| "is empty".to_owned())
}

/// Says what was found, without repeating long text.
fn wrong(value: &Value, needed: &str) -> String {
    match value {
        Value::String(text) if text.len() > 40 => format!("this text won't do: {needed}"),
        Value::Table(_) => format!("a table won't do: {needed}"),
        other => format!("{other} won't do: {needed}"),
    }
}

/// Names inside the tables of a map or list of tables.
fn check_names(value: &Value, known: &[&str]) -> Result<(), String> {
    let tables: Vec<(String, &Value)> = match value {
        Value::Table(table) => table
            .iter()
            .map(|(name, item)| (name.clone(), item))
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(at, item)| (format!("[{at}]"), item))
            .collect(),
        _ => Vec::new(),
    };
    for (place, item) in tables {
        for name in item.as_table().into_iter().flat_map(toml::Table::keys) {
            if known.contains(&name.as_str()) {
                continue;
            }
            return Err(match nearest(name, known) {
                Some(near) => format!("{place}: there is no key {name}; did you mean {near}?"),
                None => format!(
                    "{place}: there is no key {name}; it knows {}",
                    known.join(", ")
                ),
            });
        }
    }
    Ok(())
}

/// TOML's dates become text: parameters are typed from their text, as in a request.
fn without_dates(value: Value) -> Value {
    match value {
        Value::Datetime(date) => Value::String(date.to_string()),
        Value::Array(list) => list
            .into_iter()
            .map(without_dates)
            .collect::<Vec<_>>()
            .into(),
        Value::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(name, item)| (name, without_dates(item)))
                .collect(),
        ),
        other => other,
    }
}
