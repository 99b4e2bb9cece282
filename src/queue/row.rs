//! How a job's row reads, for both backends: the columns, in one order, and the two types that sqlx has no driver
//! code for without further features (UUIDs, and moments as jiff knows them).
//!
//! Refuses to know SQL beyond the names of the columns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    ColumnIndex, Database, Decode, Encode, Postgres, Row, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
    sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
};
use uuid::Uuid;

use super::{Error, Job, JobKind, Result, Standing};
use crate::export::{ExportId, ExportSpec, Fence, ReadFrom, SpecHash, State, TenantId, WorkerId};

/// A job and the columns that only the store itself reads.
#[derive(Debug)]
pub(super) struct StoredJob {
    pub job: Job,
    /// QUEUED and in backoff: not in the ready index, not in the tenant's `ready`.
    pub delayed: bool,
    /// What the claim added to the tenant's virtual time; 0 unless RUNNING or CANCELLING.
    pub charged: i64,
    /// Why this version can't run it: another one wrote it. Of the spec, only the source is known then.
    pub unreadable: Option<String>,
}

impl StoredJob {
    /// The readable ones are for running. One that is not ends by itself, and is not in the way of others.
    pub fn log_unreadable(&self) {
        if let Some(why) = &self.unreadable {
            tracing::error!(job.id = %self.job.id, why, "the stored export can't be read; it fails");
        }
    }
}

/// Reads a row that was selected with the backend's list of columns. One that another version wrote is told as such, and
/// with what can be read: it must not be an error of whoever lists, claims or sweeps it among others.
pub(super) fn stored_job<R>(row: &R) -> Result<StoredJob>
where
    R: Row,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i16: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i32: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Id: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> At: Decode<'r, R::Database> + Type<R::Database>,
{
    let state: i16 = row.try_get("state")?;
    let kind: i16 = row.try_get("kind")?;
    let attempt: i32 = row.try_get("attempt")?;
    let estimated_rows: Option<i64> = row.try_get("estimated_rows")?;
    let moment = |column: &str| -> Result<Option<Timestamp>> {
        Ok(row.try_get::<Option<At>, _>(column)?.map(|at| at.0))
    };
    let created_at: At = row.try_get("created_at")?;
    let ready_at: At = row.try_get("ready_at")?;
    let mut unreadable = None;
    let spec = from_json(&row.try_get::<String, _>("spec")?);
    let source: String = row.try_get("source")?;
    let spec = spec.unwrap_or_else(|error| {
        unreadable = Some(error.to_string());
        spec_of(source)
    });
    let kind = kind_of(kind).unwrap_or_else(|| {
        unreadable = Some(format!("it has the unknown kind {kind}"));
        JobKind::Export
    });
    let job = Job {
        id: ExportId(row.try_get::<Id, _>("id")?.0),
        tenant: TenantId(row.try_get("tenant")?),
        spec,
        kind,
        state: state_of(state)?,
        attempt: u32::try_from(attempt)
            .map_err(|_| Error::Broken(format!("a job has the attempt {attempt}")))?,
        fence: Fence(row.try_get("fence")?),
        worker: row.try_get::<Option<String>, _>("worker")?.map(WorkerId),
        created_at: created_at.0,
        started_at: moment("started_at")?,
        ended_at: moment("ended_at")?,
        ready_at: ready_at.0,
        estimated_rows: estimated_rows.and_then(|rows| u64::try_from(rows).ok()),
        error: known_json(row.try_get("error")?),
        last_failure: known_json(row.try_get("last_failure")?),
        result: known_json(row.try_get("result")?),
        result_expired: row.try_get("result_expired")?,
    };
    Ok(StoredJob {
        job,
        delayed: row.try_get("delayed")?,
        charged: row.try_get("charged")?,
        unreadable,
    })
}

pub(super) fn job<R>(row: &R) -> Result<Job>
where
    R: Row,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i16: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i32: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Id: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> At: Decode<'r, R::Database> + Type<R::Database>,
{
    stored_job(row).map(|stored| stored.job)
}

/// Reads `id, state, fence, result_expired`.
pub(super) fn standing<R>(row: &R) -> Result<(ExportId, Standing)>
where
    R: Row,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i16: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Id: Decode<'r, R::Database> + Type<R::Database>,
{
    let standing = Standing {
        state: state_of(row.try_get("state")?)?,
        fence: Fence(row.try_get("fence")?),
        result_expired: row.try_get("result_expired")?,
    };
    Ok((ExportId(row.try_get::<Id, _>("id")?.0), standing))
}

pub(super) fn spec_hash(bytes: Vec<u8>) -> Result<SpecHash> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::Broken("a stored hash is not 32 bytes long".to_owned()))?;
    Ok(SpecHash(bytes))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::Broken(format!("a value can't be written as JSON: {e}")))
}

pub(super) fn optional_to_json<T: Serialize>(value: Option<&T>) -> Result<Option<String>> {
    value.map(to_json).transpose()
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::Broken(format!("stored JSON is not what this version knows: {e}")))
}

/// Counts are u64 in the domain and bigint in the databases; what doesn't fit is as good as the most that does.
pub(super) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What another version wrote and this one can't read is as good as none.
fn known_json<T: DeserializeOwned>(text: Option<String>) -> Option<T> {
    from_json(&text?).ok()
}

fn state_of(number: i16) -> Result<State> {
    State::from_number(number)
        .ok_or_else(|| Error::Broken(format!("a job has the unknown state {number}")))
}

fn kind_of(number: i16) -> Option<JobKind> {
    [JobKind::Export, JobKind::Live]
        .into_iter()
        .find(|kind| *kind as i16 == number)
}

/// All that is known of a spec that can't be read.
fn spec_of(source: String) -> ExportSpec {
    ExportSpec {
        source,
        from: ReadFrom::Sql(String::new()),
        params: BTreeMap::new(),
        columns: Vec::new(),
        filter: None,
        format: None,
        file_name: None,
        time_zone: None,
        ttl: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

/// A UUID: `uuid` in PostgreSQL, 16 bytes in SQLite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id(pub Uuid);

/// A moment to the microsecond: `timestamptz` in PostgreSQL, microseconds since 1970 in SQLite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct At(pub Timestamp);

impl At {
    /// PostgreSQL counts from 2000-01-01.
    const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
}

const UUID_OID: Oid = Oid(2950);
const UUID_ARRAY_OID: Oid = Oid(2951);
const TIMESTAMPTZ_OID: Oid = Oid(1184);

impl Type<Postgres> for Id {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UUID_OID)
    }
}

impl PgHasArrayType for Id {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UUID_ARRAY_OID)
    }
}

impl Encode<'_, Postgres> for Id {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Id {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        // Prepared statements answer in binary, and the store uses no others for what it reads.
        Ok(Self(Uuid::from_slice(value.as_bytes()?)?))
    }
}

impl Type<Postgres> for At {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_OID)
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let us = self.0.as_microsecond() - Self::POSTGRES_EPOCH_US;
        <i64 as Encode<Postgres>>::encode(us, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for At {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let us = <i64 as Decode<'r, Postgres>>::decode(value)?;
        Ok(Self(Timestamp::from_microsecond(
            us.saturating_add(Self::POSTGRES_EPOCH_US),
        )?))
    }
}

impl Type<Sqlite> for Id {
    fn type_info() -> SqliteTypeInfo {
        <Vec<u8> as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Id {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <Vec<u8> as Encode<Sqlite>>::encode(self.0.as_bytes().to_vec(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for Id {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes = <Vec<u8> as Decode<'r, Sqlite>>::decode(value)?;
        Ok(Self(Uuid::from_slice(&bytes)?))
    }
}

impl Type<Sqlite> for At {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &<Sqlite as Database>::TypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for At {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Sqlite>>::encode(self.0.as_microsecond(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for At {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let us = <i64 as Decode<'r, Sqlite>>::decode(value)?;
        Ok(Self(Timestamp::from_microsecond(us)?))
    }
}
