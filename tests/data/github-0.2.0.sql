-- A store of waitbus 0.2.0, as that release writes it: what `sqlite3`'s dump gave of the github.db that its `waitbus init`
-- made and its `waitbus.emit` filled with seven events of our own. Only empty lines were taken out.
-- The file itself was in WAL mode, with user_version 0, application_id 0 and auto_vacuum off.
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    event_type TEXT NOT NULL,
    owner TEXT NOT NULL,
    repo TEXT NOT NULL,
    run_id INTEGER,
    workflow_name TEXT,
    head_branch TEXT,
    head_sha TEXT,
    status TEXT,
    conclusion TEXT,
    received_at INTEGER NOT NULL,  
    payload_json TEXT NOT NULL,
    ingest_method TEXT NOT NULL,
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
    event_id TEXT
);
INSERT INTO "events" VALUES(1,'sample-1','github','workflow_run','octo','demo',4711,'CI','main','0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c','completed','failure',1763337601000000000,'{"action": "completed"}','webhook',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BKPXA4XDAJA8PPMB9NX');
INSERT INTO "events" VALUES(2,'sample-2','github','workflow_job','octo','demo',NULL,NULL,NULL,'0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c','completed','success',1763337602000000000,'{"action": "completed"}','etag-poll',99,'build (3.12)',4711,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BM9CYPSQ19MTSRCVX0S');
INSERT INTO "events" VALUES(3,'sample-3','alertmanager','prometheus_alert','local','local',NULL,NULL,NULL,NULL,'firing',NULL,1763337603000000000,'{"status": "firing"}','manual',NULL,NULL,NULL,'DiskFull','critical','c0ffee',NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BMEKMC42MD8BZ0RKAHJ');
INSERT INTO "events" VALUES(4,'sample-4','pytest','pytest_session','local','demo',NULL,NULL,NULL,NULL,'completed','failure',1763337604000000000,'{"passed": 3, "failed": 1}','manual',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BMJFMHPQTHZYW1SGZXS');
INSERT INTO "events" VALUES(5,'sample-5','docker','docker_container','local','local',NULL,NULL,NULL,NULL,'completed','failure',1763337605000000000,'{"Action": "die"}','manual',NULL,'web',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BMP5RP71766JMEEK1QQ');
INSERT INTO "events" VALUES(6,'sample-6','fs','fs_change','local','local',NULL,'übung.txt',NULL,NULL,NULL,NULL,1763337606000000000,'{"path": "/srv/\u00fcbung.txt"}','manual',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'01M87G3BMWEYHANS5V3BA06CYY');
INSERT INTO "events" VALUES(7,'sample-7','agent','agent_message','local','local',NULL,NULL,NULL,NULL,NULL,NULL,1763337607000000000,'{}','manual',NULL,NULL,NULL,NULL,NULL,NULL,'worker','lead','c-1','lead','t-1','it’s ready
second line','01M87G3BNAZD0AEYF2S8512JWR');
CREATE TABLE schema_migrations (
    sequence_number INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    applied_at_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
INSERT INTO "schema_migrations" VALUES(1,'initial_schema',1795548097151976459,'509739d1bf2d9143a194351d1970254aab86db12dfd41341205967ed444236d3');
INSERT INTO "schema_migrations" VALUES(2,'add_daemon_sequence',1795548097151976459,'2d19fb804af3ffe64582660495efb383704e0d760823c5925d6b67526cb915b2');
CREATE INDEX idx_owner_repo_event
    ON events(owner, repo, event_type, received_at DESC);
CREATE INDEX idx_run_id
    ON events(run_id) WHERE run_id IS NOT NULL;
CREATE INDEX idx_parent_run_id
    ON events(parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX idx_job_id
    ON events(job_id) WHERE job_id IS NOT NULL;
CREATE INDEX idx_alert_lookup
    ON events(event_type, alert_name, received_at DESC)
    WHERE event_type IN ('prometheus_alert', 'prometheus_watchdog');
CREATE INDEX idx_alert_fingerprint
    ON events(alert_fingerprint) WHERE alert_fingerprint IS NOT NULL;
CREATE UNIQUE INDEX idx_event_id
    ON events(event_id) WHERE event_id IS NOT NULL;
CREATE INDEX idx_msg_to
    ON events(msg_to, received_at DESC) WHERE msg_to IS NOT NULL;
CREATE INDEX idx_msg_correlation
    ON events(msg_correlation_id) WHERE msg_correlation_id IS NOT NULL;
CREATE INDEX idx_workflow_job_head_sha
    ON events(head_sha, owner, repo, received_at DESC)
    WHERE event_type = 'workflow_job' AND head_sha IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',7);
COMMIT;
