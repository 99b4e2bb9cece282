//! What the databases answer when they can't, as the errors of this layer; and the one place that tries again.

use std::{future::Future, time::Duration};

use super::{Error, Result};

/// Attempts of one transaction that was contended. Each waits at most the database's own lock time-out, so this bounds
/// a call; past it the caller's own loop is the better place to wait.
const TRIES_MAX: u32 = 6;
const BACKOFF_MIN: Duration = Duration::from_millis(5);

/// Runs a transaction again, from its start, while the database says that nothing happened.
pub(super) async fn retried<T, F, Run>(mut transaction: F) -> Result<T>
where
    F: FnMut() -> Run,
    Run: Future<Output = Result<T>>,
{
    let mut tries = 1;
    loop {
        match transaction().await {
            Err(Error::Contended(_)) if tries < TRIES_MAX => {
                let ceiling = BACKOFF_MIN * 2_u32.pow(tries);
                tokio::time::sleep(ceiling.mul_f64(rand::random_range(0.5..1.0))).await;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                let sqlite = database
                    .try_downcast_ref::<sqlx::sqlite::SqliteError>()
                    .is_some();
                let text = format!("{} ({code})", database.message());
                match if sqlite {
                    of_sqlite(&code)
                } else {
                    of_sqlstate(&code)
                } {
                    Kind::Contended => Self::Contended(text),
                    Kind::Unavailable => Self::Unavailable(text),
                    Kind::Broken => Self::Broken(text),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Kind {
    Contended,
    Unavailable,
    Broken,
}

fn of_sqlstate(code: &str) -> Kind {
    match code {
        // Serialization failure, deadlock; lock_timeout. 40003 (completion unknown) is none of ours to repeat.
        "40001" | "40P01" | "55P03" => Kind::Contended,
        // Connection trouble, lack of resources, shutdown and start, a standby after a failover, a killed statement,
        // a session that was idle in its transaction for too long (our own time-out, of a process that stood still).
        _ if code.starts_with("08")
            || code.starts_with("53")
            || code.starts_with("57")
            || code.starts_with("58")
            || code == "25006"
            || code == "25P03"
            || code == "40003" =>
        {
            Kind::Unavailable
        }
        _ if code.starts_with("40") => Kind::Contended,
        _ => Kind::Broken,
    }
}

fn of_sqlite(extended: &str) -> Kind {
    // The low byte is the primary code.
    match extended.parse::<u32>().map(|code| code & 0xff) {
        // SQLITE_BUSY, SQLITE_LOCKED
        Ok(5 | 6) => Kind::Contended,
        // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
        Ok(10 | 13 | 14) => Kind::Unavailable,
        _ => Kind::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_told_apart() {
        for code in ["40001", "40P01", "55P03"] {
            assert_eq!(of_sqlstate(code), Kind::Contended, "{code}");
        }
        for code in [
            "08006", "53300", "57P01", "57P03", "25006", "25P03", "40003",
        ] {
            assert_eq!(of_sqlstate(code), Kind::Unavailable, "{code}");
        }
        for code in ["23505", "42P01", "42601"] {
            assert_eq!(of_sqlstate(code), Kind::Broken, "{code}");
        }
    }

    #[test]
    fn sqlite_codes_are_read_by_their_low_byte() {
        assert_eq!(of_sqlite("5"), Kind::Contended);
        assert_eq!(of_sqlite("517"), Kind::Contended); // SQLITE_BUSY_SNAPSHOT
        assert_eq!(of_sqlite("13"), Kind::Unavailable);
        assert_eq!(of_sqlite("2067"), Kind::Broken); // SQLITE_CONSTRAINT_UNIQUE
    }

    #[tokio::test]
    async fn contention_is_retried_a_bounded_number_of_times() {
        let mut calls = 0;
        let answer: Result<()> = retried(|| {
            calls += 1;
            async { Err(Error::Contended("again".to_owned())) }
        })
        .await;
        assert!(matches!(answer, Err(Error::Contended(_))));
        assert_eq!(calls, TRIES_MAX);
    }
}
