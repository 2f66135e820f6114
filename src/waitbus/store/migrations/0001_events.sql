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
    "container_id" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.container_id') END),
    "container_name" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.container_name') END),
    "image" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.image') END),
    "exit_code" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.exit_code') END),
    "action" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.action') END),
    "path" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.path') END),
    "name" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.name') END),
    "change" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.change') END),
    "passed" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.passed') END),
    "failed" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.failed') END),
    "errors" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.errors') END),
    "skipped" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.skipped') END),
    "duration_s" REAL AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.duration_s') END),
    "nodeids_failed" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.nodeids_failed') END),
    "exit_status" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.exit_status') END),
    "rootdir" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.rootdir') END),
    "pid" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.pid') END),
    "argv" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.argv') END),
    "signal" INTEGER AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.signal') END),
    "tail" TEXT AS (CASE WHEN json_valid(fields_json) THEN json_extract(fields_json, '$.tail') END),
    payload_json TEXT NOT NULL
);

CREATE UNIQUE INDEX events_event_id ON events (event_id);
CREATE INDEX events_head_sha ON events (head_sha) WHERE head_sha IS NOT NULL;
CREATE INDEX events_correlation ON events (msg_correlation_id) WHERE msg_correlation_id IS NOT NULL;

-- Every event has a ULID: whoever inserts none gets one, of the clock and chance.
CREATE TRIGGER events_give_event_id AFTER INSERT ON events
WHEN NEW.event_id IS NULL
    OR typeof(NEW.event_id) <> 'text'
    OR length(NEW.event_id) <> 26
    OR NEW.event_id GLOB '*[^0-9A-HJKMNP-TV-Z]*'
BEGIN
    UPDATE events SET event_id = (
        WITH ulid (ms, crockford) AS (
            SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
        )
        SELECT
            substr(crockford, (ms >> 45 & 31) + 1, 1) ||
            substr(crockford, (ms >> 40 & 31) + 1, 1) ||
            substr(crockford, (ms >> 35 & 31) + 1, 1) ||
            substr(crockford, (ms >> 30 & 31) + 1, 1) ||
            substr(crockford, (ms >> 25 & 31) + 1, 1) ||
            substr(crockford, (ms >> 20 & 31) + 1, 1) ||
            substr(crockford, (ms >> 15 & 31) + 1, 1) ||
            substr(crockford, (ms >> 10 & 31) + 1, 1) ||
            substr(crockford, (ms >> 5 & 31) + 1, 1) ||
            substr(crockford, (ms >> 0 & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1) ||
            substr(crockford, (random() & 31) + 1, 1)
        FROM ulid
    ) WHERE seq = NEW.seq;
END;

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
