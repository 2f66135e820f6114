-- The natural names of github and docker that 0001 left out. Virtual columns take no space, so that `payload_json`
-- still is the last one of a row.

ALTER TABLE events ADD COLUMN run_attempt INTEGER AS (json_extract(fields_valid, '$.run_attempt'));
ALTER TABLE events ADD COLUMN workflow_id INTEGER AS (json_extract(fields_valid, '$.workflow_id'));
ALTER TABLE events ADD COLUMN event TEXT AS (json_extract(fields_valid, '$.event'));
ALTER TABLE events ADD COLUMN head_repo TEXT AS (json_extract(fields_valid, '$.head_repo'));
ALTER TABLE events ADD COLUMN html_url TEXT AS (json_extract(fields_valid, '$.html_url'));
ALTER TABLE events ADD COLUMN labels TEXT AS (json_extract(fields_valid, '$.labels'));
ALTER TABLE events ADD COLUMN compose_project TEXT AS (json_extract(fields_valid, '$.compose_project'));
ALTER TABLE events ADD COLUMN compose_service TEXT AS (json_extract(fields_valid, '$.compose_service'));
ALTER TABLE events ADD COLUMN oom INTEGER AS (json_extract(fields_valid, '$.oom'));
