-- The queue: tenants, sources, jobs; what operators set; which processes live. Paired with migrations/postgres, where
-- the columns are explained. Moments are microseconds since 1970, UUIDs 16 bytes, JSON text.

create table tenants (
    name text primary key,
    running integer not null default 0 check (running >= 0),
    ready integer not null default 0 check (ready >= 0),
    virtual_time integer not null default 0,
    paused integer not null default 0
) strict, without rowid;

create index tenants_next on tenants (virtual_time, name) where ready > 0 and not paused;
create index tenants_active on tenants (virtual_time) where ready > 0 or running > 0;

create table sources (
    name text primary key,
    running integer not null default 0 check (running >= 0)
) strict, without rowid;

create table jobs (
    id blob primary key,
    tenant text not null,
    source text not null,
    kind integer not null,
    state integer not null,
    rank integer not null,
    delayed integer not null default 0,
    spec text not null,
    spec_hash blob not null,
    request_id blob,
    labels text not null,
    estimated_rows integer,
    attempt integer not null,
    fence integer not null,
    worker text,
    lease_until integer,
    charged integer not null default 0,
    created_at integer not null,
    ready_at integer not null,
    started_at integer,
    ended_at integer,
    error text,
    last_failure text,
    result text,
    result_expires_at integer,
    result_expired integer not null default 0
) strict;

create index jobs_ready on jobs (tenant, source, rank, created_at, id) where state = 1 and not delayed;
create index jobs_delayed on jobs (ready_at) where state = 1 and delayed;
create index jobs_owned on jobs (id) where state in (2, 3);
create unique index jobs_request on jobs (tenant, request_id) where request_id is not null;
create index jobs_listed on jobs (tenant, created_at, id);
create index jobs_expiring on jobs (result_expires_at)
    where state = 4 and not result_expired and result_expires_at is not null;
create index jobs_ended on jobs (ended_at) where state in (4, 5, 6);

create table control (
    single integer primary key check (single = 1),
    paused integer not null default 0,
    limits text not null default '{}',
    token_key blob not null
) strict;

create table workers (
    id text primary key,
    host text not null,
    started_at integer not null,
    seen_at integer not null,
    running integer not null,
    slots integer not null,
    version text not null
) strict;
