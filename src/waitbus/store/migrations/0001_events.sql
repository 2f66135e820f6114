-- Events, in the order of their commits.
--
-- The columns of 0.2.0 keep their names and types, so that a program which inserts those alone is heard.
-- `payload_json` stands last: a big payload's overflow pages are never walked to reach another column.

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    event_type TEXT NOT NULL,
    owner TEXT NOT NULL,
    repo TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    ingest_method TEXT NOT NULL,
    run_id INTEGER,
    workflow_name TEXT,
    head_branch TEXT,
    head_sha TEXT,
    status TEXT,
    conclusion TEXT,
    job_id INTEGER,
    job_name TEXT,
    parent_run_id INTEGER,
    alert_name TEXT,
    alert_severity TEXT,
    alert_fingerprint TEXT,
    msg_to TEXT,
    msg_from TEXT,
    msg_correlation_id TEXT,
    msg_reply_to TEXT,
    msg_thread TEXT,
    msg_body TEXT,
    event_id TEXT,
    summary TEXT,
    fields_json TEXT,
    -- The natural names, for people who write SQL: computed when read, from `fields_json` where that is JSON.
    fields_valid TEXT AS (CASE WHEN json_valid(fields_json) THEN fields_json END),
    container_id TEXT AS (json_extract(fields_valid, '$.container_id')),
    container_name TEXT AS (json_extract(fields_valid, '$.container_name')),
    image TEXT AS (json_extract(fields_valid, '$.image')),
    exit_code INTEGER AS (json_extract(fields_valid, '$.exit_code')),
    action TEXT AS (json_extract(fields_valid, '$.action')),
    path TEXT AS (json_extract(fields_valid, '$.path')),
    name TEXT AS (json_extract(fields_valid, '$.name')),
    change TEXT AS (json_extract(fields_valid, '$.change')),
    passed INTEGER AS (json_extract(fields_valid, '$.passed')),
    failed INTEGER AS (json_extract(fields_valid, '$.failed')),
    errors INTEGER AS (json_extract(fields_valid, '$.errors')),
    skipped INTEGER AS (json_extract(fields_valid, '$.skipped')),
    duration_s REAL AS (json_extract(fields_valid, '$.duration_s')),
    nodeids_failed TEXT AS (json_extract(fields_valid, '$.nodeids_failed')),
    exit_status INTEGER AS (json_extract(fields_valid, '$.exit_status')),
    rootdir TEXT AS (json_extract(fields_valid, '$.rootdir')),
    pid INTEGER AS (json_extract(fields_valid, '$.pid')),
    argv TEXT AS (json_extract(fields_valid, '$.argv')),
    signal INTEGER AS (json_extract(fields_valid, '$.signal')),
    tail TEXT AS (json_extract(fields_valid, '$.tail')),
    payload_json TEXT NOT NULL
);

-- A row whose writer gave no ULID is read with one made of its time and its `seq` (store/read.py): a trigger that wrote
-- it here would cost every insert a fifth of its time.
CREATE UNIQUE INDEX events_event_id ON events (event_id);
CREATE INDEX events_head_sha ON events (head_sha) WHERE head_sha IS NOT NULL;
CREATE INDEX events_correlation ON events (msg_correlation_id) WHERE msg_correlation_id IS NOT NULL;

-- What this file has been through, for people and for `import`.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE schema_migrations (
    sequence_number INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    applied_at_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
