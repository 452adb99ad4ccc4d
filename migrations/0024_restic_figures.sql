-- Up Migration
-- What plain archives hold (docs/decisions/restic.md), kept exact by the transactions that add, hide, show and delete files, all
-- of which hold the archive's row. For people; what quotas do not charge is counted by block (0025).

-- By the folder that files lie in, '' at the top. A file is hidden when its latest version is the record of a deletion; then
-- `hidden_bytes` is the size of the newest version that it still has, however many there are: earlier ones of a name that is
-- its content's digest are the same blocks. `last_added_at`: when a file was last sent, by the database's clock.
CREATE TABLE plain_figures (
  vault_id      bigint NOT NULL,
  archive_id    bigint NOT NULL,
  folder        text   NOT NULL,
  files         bigint NOT NULL,
  bytes         bigint NOT NULL,
  hidden_files  bigint NOT NULL,
  hidden_bytes  bigint NOT NULL,
  last_added_at timestamptz,
  PRIMARY KEY (vault_id, archive_id, folder)
) WITH (fillfactor = 70);

-- What was hidden on a day, in UTC, and how often. Never lowered: undoing is not counted off.
CREATE TABLE plain_deletes (
  vault_id   bigint NOT NULL,
  archive_id bigint NOT NULL,
  day        date   NOT NULL,
  files      bigint NOT NULL,
  bytes      bigint NOT NULL,
  PRIMARY KEY (vault_id, archive_id, day)
) WITH (fillfactor = 70);
