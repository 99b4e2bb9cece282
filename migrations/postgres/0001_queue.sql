-- The queue: tenants, sources, jobs; what operators set; which processes live. Paired with migrations/sqlite.

-- One row for each tenant that ever submitted. Locked first by everything that moves one of its jobs.
create table tenants (
    name text primary key,
    -- Jobs RUNNING or CANCELLING; the cap is enforced on this number.
    running bigint not null default 0 check (running >= 0),
    -- Jobs QUEUED and past their backoff: what a claim may take.
    ready bigint not null default 0 check (ready >= 0),
    -- Work done (rows + bytes / 256), raised to the least active tenant's when the tenant becomes active.
    virtual_time bigint not null default 0,
    paused boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

-- Whom to serve next, in order: a claim reads the head of this index.
create index tenants_next on tenants (virtual_time, name) where ready > 0 and not paused;
-- Where a newcomer starts.
create index tenants_active on tenants (virtual_time) where ready > 0 or running > 0;

-- One row for each source that was ever asked for. Locked after the tenant, before the job.
create table sources (
    name text primary key,
    running bigint not null default 0 check (running >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);

create table jobs (
    id uuid primary key,
    tenant text not null,
    source text not null,
    kind smallint not null,
    state smallint not null,
    -- 9 - priority, so that the order of claims ascends in every column.
    rank smallint not null,
    -- QUEUED and in backoff until ready_at: out of the ready index, so that no claim steps over it.
    delayed boolean not null default false,
    -- Text rather than jsonb: numbers and escapes are kept as they came.
    spec json not null,
    spec_hash bytea not null,
    request_id uuid,
    labels jsonb not null,
    estimated_rows bigint,
    attempt integer not null,
    fence bigint not null,
    worker text,
    -- In no index: renewing touches only this column, and the update stays within the page (HOT).
    lease_until timestamptz,
    -- What the claim added to the tenant's virtual time, to be corrected when the attempt ends.
    charged bigint not null default 0,
    created_at timestamptz not null,
    ready_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    error json,
    last_failure json,
    result json,
    result_expires_at timestamptz,
    result_expired boolean not null default false
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- The queue itself: by tenant and source, so that a full source's backlog is never scanned.
create index jobs_ready on jobs (tenant, source, rank, created_at, id) where state = 1 and not delayed;
create index jobs_delayed on jobs (ready_at) where state = 1 and delayed;
create index jobs_owned on jobs (id) where state in (2, 3);
create unique index jobs_request on jobs (tenant, request_id) where request_id is not null;
create index jobs_listed on jobs (tenant, created_at, id);
create index jobs_expiring on jobs (result_expires_at)
    where state = 4 and not result_expired and result_expires_at is not null;
create index jobs_ended on jobs (ended_at) where state in (4, 5, 6);

-- What operators set, and the key that authenticates tokens. One row.
create table control (
    single smallint primary key check (single = 1),
    paused boolean not null default false,
    limits json not null default '{}',
    token_key bytea not null
);

create table workers (
    id text primary key,
    host text not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    running bigint not null,
    slots bigint not null,
    version text not null
) with (fillfactor = 50);
