//! The schema's history, embedded in the binary: which scripts there are, and which of them a database lacks.
//!
//! Append-only: a script that was ever applied is never changed, and a database that is ahead of this binary is fine
//! (the release before the last one must go on while a cluster is rolled). Each backend applies what is missing in one
//! transaction, under its own kind of lock.

use super::{Error, Result};

#[derive(Debug)]
pub(super) struct Migration {
    pub number: i64,
    pub name: &'static str,
    pub sql: &'static str,
}

pub(super) const SQLITE: &[Migration] = &[Migration {
    number: 1,
    name: "queue",
    sql: include_str!("../../migrations/sqlite/0001_queue.sql"),
}];

pub(super) const POSTGRES: &[Migration] = &[Migration {
    number: 1,
    name: "queue",
    sql: include_str!("../../migrations/postgres/0001_queue.sql"),
}];

/// The scripts that are not among `applied` (number, name); an error where the history is another one.
pub(super) fn missing(
    known: &'static [Migration],
    applied: &[(i64, String)],
) -> Result<Vec<&'static Migration>> {
    let mut missing = Vec::new();
    for migration in known {
        match applied
            .iter()
            .find(|(number, _)| *number == migration.number)
        {
            None => missing.push(migration),
            Some((_, name)) if name == migration.name => {}
            Some((number, name)) => {
                return Err(Error::Broken(format!(
                    "migration {number} of this database is {name}, of this version {}: not a queue of Rowgate",
                    migration.name
                )));
            }
        }
    }
    Ok(missing)
}

/// A new key that authenticates tokens.
pub(super) fn new_token_key() -> Vec<u8> {
    let mut key = [0_u8; 32];
    rand::fill(&mut key[..]);
    key.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_histories_are_paired_and_ascend() {
        let names =
            |list: &[Migration]| -> Vec<_> { list.iter().map(|m| (m.number, m.name)).collect() };
        assert_eq!(names(SQLITE), names(POSTGRES));
        assert!(SQLITE.is_sorted_by_key(|m| m.number));
    }

    #[test]
    fn a_database_that_is_ahead_is_fine_and_one_of_others_is_not() {
        let ahead = [(1, "queue".to_owned()), (99, "later".to_owned())];
        assert!(missing(SQLITE, &ahead).expect("known").is_empty());
        assert!(missing(SQLITE, &[(1, "users".to_owned())]).is_err());
        assert_eq!(missing(SQLITE, &[]).expect("known").len(), SQLITE.len());
    }
}
