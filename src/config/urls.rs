//! The addresses in the configuration: which schemes each place takes, and how they are shown.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// Where the jobs are kept.
#[derive(Clone, Debug)]
pub enum QueueUrl {
    /// A file, relative unless it starts with `/`.
    Sqlite(PathBuf),
    Postgres(SecretString),
}

pub(super) fn queue(url: &SecretString) -> Result<QueueUrl, String> {
    let text = url.expose_secret();
    match scheme(text) {
        "sqlite" => Ok(QueueUrl::Sqlite(path_of(text)?)),
        "postgres" | "postgresql" => {
            check_server_url(text)?;
            Ok(QueueUrl::Postgres(url.clone()))
        }
        other => Err(format!(
            "{}: write sqlite://PATH or postgres://USER@HOST/DATABASE",
            unknown_scheme(other)
        )),
    }
}

/// Who watches that owners are alive.
#[derive(Clone, Debug)]
pub enum LeaseUrl {
    /// One process for each queue.
    Local,
    /// `redis://` or `rediss://`.
    Redis(SecretString),
}

impl LeaseUrl {
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Redis(url) if scheme(url.expose_secret()) == "rediss")
    }
}

pub(super) fn lease(url: &SecretString) -> Result<LeaseUrl, String> {
    let text = url.expose_secret();
    match scheme(text) {
        _ if text == LOCAL => Ok(LeaseUrl::Local),
        "redis" | "rediss" => {
            check_redis_url(text)?;
            Ok(LeaseUrl::Redis(url.clone()))
        }
        other => Err(format!(
            "{}: write \"local\", redis://HOST or rediss://USER:PASSWORD@HOST:PORT/DATABASE",
            unknown_scheme(other)
        )),
    }
}

const LOCAL: &str = "local";

fn check_redis_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL names no host: write redis://HOST:PORT".to_owned());
    }
    let database = url.path().trim_matches('/');
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err("a database of Redis is a number: write redis://HOST:PORT/0".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("options after ? or # are not known here".to_owned());
    }
    Ok(())
}

/// The folder of the results.
pub(super) fn storage(text: &str) -> Result<PathBuf, String> {
    match scheme(text) {
        "file" => path_of(text),
        "s3" | "gs" | "az" => Err(
            "object stores are not there yet: write file://PATH, a folder of this machine"
                .to_owned(),
        ),
        other => Err(format!("{}: write file://PATH", unknown_scheme(other))),
    }
}

pub(super) fn source(url: &SecretString) -> Result<(), String> {
    let text = url.expose_secret();
    match scheme(text) {
        "sqlite" => path_of(text).map(|_| ()),
        "postgres" | "postgresql" | "mysql" => check_server_url(text),
        other => Err(format!(
            "{}: write postgres://, mysql:// or sqlite://PATH",
            unknown_scheme(other)
        )),
    }
}

/// The URL without what it keeps secret.
pub(super) fn masked(text: &str) -> String {
    const MASK: &str = "***";
    if text == LOCAL || matches!(scheme(text), "sqlite" | "file") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else {
        return MASK.to_owned();
    };
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().any(|(name, _)| is_secret(name)) {
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs.iter().map(|(name, value)| {
                (
                    name,
                    if is_secret(name) {
                        MASK
                    } else {
                        value.as_str()
                    },
                )
            }));
    }
    url.to_string()
}

fn is_secret(parameter: &str) -> bool {
    let name = parameter.to_lowercase();
    ["password", "passwd", "secret", "token"]
        .iter()
        .any(|word| name.contains(word))
}

fn scheme(text: &str) -> &str {
    text.split_once("://").map_or("", |(scheme, _)| scheme)
}

/// Never repeats the text: it may hold a password in a place where nobody looked for one.
fn unknown_scheme(scheme: &str) -> String {
    match scheme {
        "" => "this is no URL".to_owned(),
        // `u:password@` may stand before the `://`, too.
        word if word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'+') =>
        {
            format!("{word}:// is not known here")
        }
        _ => "this is no URL that is known here".to_owned(),
    }
}

fn path_of(text: &str) -> Result<PathBuf, String> {
    let path = text.split_once("://").map_or("", |(_, path)| path);
    if path.is_empty() || path.ends_with('/') && path.trim_matches('/').is_empty() {
        return Err("no path comes after ://".to_owned());
    }
    if path.contains('?') {
        return Err("a path takes no ?options".to_owned());
    }
    Ok(PathBuf::from(path))
}

fn check_server_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
    let names_database = !url.path().trim_matches('/').is_empty();
    if names_database || url.query_pairs().any(|(name, _)| name == "dbname") {
        Ok(())
    } else {
        Err("the URL names no database: write …@HOST/DATABASE".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        assert_eq!(
            masked("postgres://reader:hunter2@db/shop"),
            "postgres://reader:***@db/shop"
        );
        let masked_query = masked("postgres://db/shop?user=x&password=hunter2");
        assert!(!masked_query.contains("hunter2"), "{masked_query}");
        assert!(masked_query.contains("user=x"), "{masked_query}");
        assert_eq!(
            masked("postgres://reader@db/shop"),
            "postgres://reader@db/shop"
        );
        assert_eq!(masked("sqlite://a/b.db"), "sqlite://a/b.db");
        assert_eq!(masked("hunter2"), "***");
        assert_eq!(masked("local"), "local");
        assert_eq!(
            masked("rediss://:hunter2@cache:6379/0"),
            "rediss://:***@cache:6379/0"
        );
    }

    #[test]
    fn paths_are_relative_unless_they_start_with_a_slash() {
        assert_eq!(
            storage("file://data/results"),
            Ok(PathBuf::from("data/results"))
        );
        assert_eq!(
            storage("file:///var/results"),
            Ok(PathBuf::from("/var/results"))
        );
        assert!(storage("file://").is_err());
        assert!(storage("file:///").is_err());
    }

    #[test]
    fn what_does_not_exist_yet_says_so() {
        for later in ["s3://bucket/prefix", "gs://bucket", "az://container"] {
            assert!(
                storage(later).unwrap_err().contains("not there yet"),
                "{later}"
            );
        }
    }

    #[test]
    fn redis_is_named_by_host_and_number() {
        for right in [
            "redis://cache",
            "redis://:hunter2@cache:6379/3",
            "rediss://user:hunter2@cache:6380/",
            "redis://[::1]:6379",
        ] {
            assert_eq!(check_redis_url(right), Ok(()), "{right}");
        }
        for wrong in [
            "redis:///0",
            "redis://cache/shop",
            "redis://cache?password=hunter2",
            "rediss://cache/#insecure",
        ] {
            assert!(check_redis_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_never_repeats_the_url() {
        for wrong in [
            "mongodb://u:hunter2@h/d",
            "u:hunter2@h/d",
            "postgres://u:hunter2@h",
        ] {
            let message = source(&SecretString::from(wrong)).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
        for wrong in ["memcached://u:hunter2@h", "hunter2", "u:hunter2@h://x"] {
            for message in [
                lease(&SecretString::from(wrong)).unwrap_err(),
                storage(wrong).unwrap_err(),
                queue(&SecretString::from(wrong)).unwrap_err(),
            ] {
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }
}
