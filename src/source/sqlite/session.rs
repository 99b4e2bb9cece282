//! One connection to the file that can do nothing but read, within one snapshot.
//!
//! `mode=ro` alone still lets `ATTACH` and `VACUUM INTO` create files. Hence an authorizer that knows what reading is
//! and refuses the rest, and a limit of no attached databases behind it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    config::DbConfig,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::Error,
    error::{is_busy, is_interrupt, opening},
    watch::Watch,
};

/// One text or blob, and one row: SQLite's own limit of a thousand million bytes is beyond any memory budget here.
const VALUE_BYTES_MAX: i32 = 64 << 20;
/// A writer in rollback-journal mode keeps readers out while it commits.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// SQLite sleeps this long at most before the watch is asked again: it can't be interrupted in its sleep.
const LOCK_WAIT: Duration = Duration::from_millis(100);

pub struct Session {
    /// Before the connection: its thread holds a handle to it.
    pub watch: Watch,
    pub connection: Connection,
}

impl Session {
    /// Opens the file and takes the snapshot. Fails with [`Error::Unavailable`] where the file is missing, is no
    /// database, or stays locked for five seconds.
    pub fn open(path: &Path, cancel: CancellationToken, limit: Duration) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // "./" keeps a file whose name begins with "file:" from being read as a URI.
        let path = Path::new(".").join(path);
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| opening(&error))?;
        let watch = Watch::start(connection.get_interrupt_handle(), cancel, limit)?;
        let session = Self { watch, connection };
        session.restrict().map_err(|error| opening(&error))?;
        session.take_snapshot()?;
        session
            .connection
            .authorizer(Some(|context: AuthContext<'_>| authorize(&context.action)))
            .map_err(|error| opening(&error))?;
        Ok(session)
    }

    fn restrict(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // A misspelt "column" must be an error, not a text in every row.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.pragma_update(None, "query_only", true)
    }

    /// BEGIN alone takes no lock: the first read does, and with it the snapshot.
    fn take_snapshot(&self) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let taken = self
                .connection
                .execute_batch("begin; select 1 from sqlite_schema limit 1");
            match taken {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if let Some(stop) = self.watch.verdict() {
                        return Err(stop);
                    }
                    let is_temporary = is_busy(&error) || is_interrupt(&error);
                    if !is_temporary || start.elapsed() > LOCK_PATIENCE {
                        return Err(opening(&error));
                    }
                    if !self.connection.is_autocommit() {
                        self.connection
                            .execute_batch("rollback")
                            .map_err(|error| opening(&error))?;
                    }
                }
            }
        }
    }
}

fn authorize(action: &AuthAction<'_>) -> Authorization {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        // Full-text tables ask for it themselves.
        AuthAction::Pragma {
            pragma_name,
            pragma_value: None,
        } if pragma_name.eq_ignore_ascii_case("data_version") => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
