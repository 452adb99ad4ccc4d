-- Up Migration
-- Which moment of an archive a time stands for (docs/decisions/restoring.md, "What retention has thinned out"). By the versions
-- alone it would be too early where retention has taken the last ones of a backup: runs remember how far each had come.
CREATE INDEX runs_by_start ON runs (vault_id, archive_id, started_at, run_id);

-- Files that were there at a restore's moment, as far as is known, and of which no version up to it is kept.
ALTER TABLE restore_requests ADD planned_thinned bigint NOT NULL DEFAULT 0;
