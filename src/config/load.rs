//! Gathers values: file, environment, flags. The only place of the crate that reads the environment, and the only one
//! that reads the configuration's files.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Config, Error, Problem,
    keys::{self, Kind},
    nearest::nearest,
    sections,
};

/// Names the file; read besides those that contain `__`.
const FILE_VARIABLE: &str = "ROWGATE_CONFIG";
const PREFIX: &str = "ROWGATE_";

/// Where the configuration comes from. Tests give an environment of their own.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--config`; else `ROWGATE_CONFIG`; else there is no file, and the defaults hold.
    pub file: Option<PathBuf>,
    /// All of the environment: what is not ours is passed over, and secrets may be read from it by name.
    pub env: Vec<(String, String)>,
    pub overrides: Vec<Override>,
}

impl Inputs {
    /// Of this process.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the place that reads the environment"
    )]
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<Override>) -> Self {
        // Names and values that are no UTF-8 can't be ours.
        let env = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file,
            env,
            overrides,
        }
    }
}

/// A flag that sets one key: the last word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// `server.listen`.
    pub key: String,
    /// As it would be written in an environment variable.
    pub value: String,
    /// `--listen`: for messages.
    pub flag: String,
}

/// # Errors
/// The file can't be read or is no TOML, or something in it, in the environment or in the flags is not right: then all
/// that is wrong is listed at once.
pub fn load(inputs: Inputs) -> Result<Config, Error> {
    let env: HashMap<String, String> = inputs.env.iter().cloned().collect();
    let mut values = Values::default();
    let file = inputs
        .file
        .or_else(|| env.get(FILE_VARIABLE).map(PathBuf::from));
    if let Some(path) = file {
        let table = read_file(&path)?;
        values.take_table(&mut Vec::new(), table, &path.display().to_string());
    }
    let mut variables = inputs.env;
    variables.sort();
    for (name, value) in variables {
        if let Some(path) = path_of_variable(&name) {
            values.take_text(path, value, &name);
        }
    }
    for over in inputs.overrides {
        let path = over.key.split('.').map(str::to_owned).collect();
        values.take_text(path, over.value, &over.flag);
    }
    values.resolve_secrets(&env);
    sections::build(values.found, values.problems)
}

/// A value that somebody wrote.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Found {
    pub value: Value,
    /// As [`Problem::origin`].
    pub origin: String,
    /// It came as text from where there is only text, and still has to be read as its kind.
    pub is_untyped: bool,
}

pub(super) type FoundByPath = BTreeMap<Vec<String>, Found>;

#[derive(Default)]
struct Values {
    found: FoundByPath,
    problems: Vec<Problem>,
}

impl Values {
    fn take_table(&mut self, path: &mut Vec<String>, table: toml::Table, origin: &str) {
        for (name, value) in table {
            path.push(name);
            match value {
                Value::Table(below) if keys::find(path).is_none() && keys::is_section(path) => {
                    self.declare(path, origin);
                    self.take_table(path, below, origin);
                }
                value => self.take(path.clone(), value, origin, Typed::Toml),
            }
            path.pop();
        }
    }

    /// `[sources.shop]` with nothing in it is a source all the same: one that lacks its URL.
    fn declare(&mut self, path: &[String], origin: &str) {
        for required in ["url", "sql"] {
            let mut key = path.to_vec();
            key.push(required.to_owned());
            if keys::find(&key).is_some_and(|key| key.default == keys::Default::Required) {
                self.found.entry(key).or_insert_with(|| Found {
                    value: Value::Table(toml::Table::new()),
                    origin: origin.to_owned(),
                    is_untyped: false,
                });
            }
        }
    }

    fn take_text(&mut self, mut path: Vec<String>, text: String, origin: &str) {
        // ROWGATE_QUEUE__URL__FILE is what `url = { file = … }` is in the file.
        let of_secret = path.split_last().and_then(|(last, above)| {
            let is_secret = keys::find(above).is_some_and(|key| key.kind == Kind::Secret);
            (is_secret && matches!(last.as_str(), "env" | "file")).then(|| last.clone())
        });
        match of_secret {
            Some(name) => {
                path.pop();
                let reference = toml::Table::from_iter([(name, Value::String(text))]);
                self.take(path, Value::Table(reference), origin, Typed::Toml);
            }
            None => self.take(path, Value::String(text), origin, Typed::Text),
        }
    }

    fn take(&mut self, path: Vec<String>, value: Value, origin: &str, typed: Typed) {
        if let Some(reason) = keys::not_yet(&path) {
            self.problem(&path, origin, format!("{reason}; remove it"));
        } else if keys::find(&path).is_some() {
            let found = Found {
                value,
                origin: origin.to_owned(),
                is_untyped: typed == Typed::Text,
            };
            self.found.insert(path, found);
        } else if keys::is_section(&path) {
            self.problem(
                &path,
                origin,
                "is a section: set the keys below it".to_owned(),
            );
        } else {
            self.problem(&path, origin, unknown(&path));
        }
    }

    /// Replaces `{ env = "NAME" }` and `{ file = "PATH" }` by what they name.
    fn resolve_secrets(&mut self, env: &HashMap<String, String>) {
        let mut problems = Vec::new();
        for (path, found) in &mut self.found {
            let is_secret = keys::find(path).is_some_and(|key| key.kind == Kind::Secret);
            let Value::Table(reference) = &found.value else {
                continue;
            };
            if !is_secret || reference.is_empty() {
                continue;
            }
            match read_secret(reference, env) {
                Ok((text, whence)) => {
                    found.value = Value::String(text);
                    found.origin = format!("{}, {whence}", found.origin);
                }
                Err(message) => {
                    problems.push(Problem {
                        key: path.join("."),
                        origin: Some(found.origin.clone()),
                        message,
                    });
                }
            }
        }
        // Whoever reads the key next would complain a second time.
        for problem in &problems {
            self.found.retain(|path, _| path.join(".") != problem.key);
        }
        self.problems.extend(problems);
    }

    fn problem(&mut self, path: &[String], origin: &str, message: String) {
        self.problems.push(Problem {
            key: path.join("."),
            origin: Some(origin.to_owned()),
            message,
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Typed {
    Toml,
    Text,
}

fn read_file(path: &Path) -> Result<toml::Table, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        error,
    })?;
    text.parse()
        .map_err(|error: toml::de::Error| Error::Syntax {
            path: path.to_owned(),
            // Without the line itself: it may hold a password.
            message: match error.span() {
                Some(span) => format!("line {}: {}", line_of(&text, span.start), error.message()),
                None => error.message().to_owned(),
            },
        })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// `ROWGATE_SERVER__LISTEN` is `server.listen`. A Kubernetes Service named rowgate injects `ROWGATE_PORT` and the like:
/// names without `__` are not ours.
fn path_of_variable(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.contains("__")
        .then(|| rest.split("__").map(str::to_lowercase).collect())
}

fn read_secret(
    reference: &toml::Table,
    env: &HashMap<String, String>,
) -> Result<(String, String), String> {
    let single = (reference.len() == 1)
        .then(|| reference.iter().next())
        .flatten();
    match single {
        Some((kind, Value::String(name))) if kind == "env" => env
            .get(name)
            .map(|text| (text.clone(), format!("variable {name}")))
            .ok_or_else(|| format!("the environment has no variable {name}")),
        Some((kind, Value::String(path))) if kind == "file" => fs::read_to_string(path)
            .map(|text| (text.trim_end().to_owned(), format!("file {path}")))
            .map_err(|error| format!("the file {path} can't be read: {error}")),
        _ => Err("write text, { env = \"NAME\" } or { file = \"PATH\" }".to_owned()),
    }
}

fn unknown(path: &[String]) -> String {
    // The first part that no key has: a wrong section is named as such.
    let depth = (0..path.len())
        .find(|depth| !keys::is_section(&path[..=*depth]))
        .unwrap_or(path.len() - 1);
    let (above, wrong) = (&path[..depth], &path[depth]);
    let place = if above.is_empty() {
        String::new()
    } else {
        format!("{}.", above.join("."))
    };
    match nearest(wrong, &keys::children(above)) {
        Some(name) => format!("there is no such key; did you mean {place}{name}?"),
        None => {
            let known = keys::children(above).join(", ");
            format!("there is no such key; {place}… knows {known}")
        }
    }
}
