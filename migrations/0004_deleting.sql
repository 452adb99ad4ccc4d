-- Up Migration
-- What the deleting half needs: what was freed and when to look at it, lists of large files, holds, leases of restores,
-- counters that make questions cheap, the fence, checks of the store, and alerts.

-- Code that does not keep these counters and counts must not write here any more.
UPDATE catalog SET breaking = 2;

-- Placing and releasing a hold writes this row, so that no deleter decides on holds it read before.
ALTER TABLE vaults ADD hold_epoch bigint NOT NULL DEFAULT 0;

ALTER TABLE objects
  ADD settled     boolean NOT NULL DEFAULT false,  -- its blocks that nobody ever referred to are in `freed`
  ADD rewrite     boolean NOT NULL DEFAULT false,  -- to be compacted however full it is
  ADD verified_at timestamptz;                     -- last read whole
CREATE INDEX objects_unsettled ON objects (vault_id, created_at) WHERE state = 'live' AND NOT settled;
CREATE INDEX objects_sparse ON objects (vault_id, object_id) WHERE state = 'live' AND (rewrite OR live_bytes * 2 < size_bytes);
CREATE INDEX objects_by_check ON objects (vault_id, verified_at NULLS FIRST) WHERE state = 'live';
CREATE INDEX objects_by_key_bytes ON objects (vault_id, key COLLATE "C");  -- the order in which stores list

-- Blocks and lists whose count fell to 0, and when it is worth looking whether they can go.
CREATE TABLE freed (
  vault_id    bigint NOT NULL,
  hash        bytea NOT NULL,
  check_after timestamptz NOT NULL,
  PRIMARY KEY (vault_id, hash)
);
CREATE INDEX freed_due ON freed (vault_id, check_after);

CREATE TABLE freed_lists (
  vault_id    bigint NOT NULL,
  hash        bytea NOT NULL,
  check_after timestamptz NOT NULL,
  PRIMARY KEY (vault_id, hash)
);
CREATE INDEX freed_lists_due ON freed_lists (vault_id, check_after);

-- Up to 4,096 hashes of a large file's blocks, named by the SHA-256 of their concatenation. Counts once on each of its
-- blocks for as long as it exists.
CREATE TABLE lists (
  vault_id      bigint NOT NULL,
  hash          bytea NOT NULL CHECK (octet_length(hash) = 32),
  refs          integer NOT NULL DEFAULT 0 CHECK (refs >= 0),
  claimed_until timestamptz NOT NULL,
  damaged_at    timestamptz,
  blocks        bytea NOT NULL CHECK (octet_length(blocks) BETWEEN 32 AND 131072 AND octet_length(blocks) % 32 = 0),
  PRIMARY KEY (vault_id, hash)
) WITH (fillfactor = 85);
ALTER TABLE lists ALTER COLUMN blocks SET STORAGE EXTERNAL;

ALTER TABLE versions ADD lists bytea NOT NULL DEFAULT '' CHECK (octet_length(lists) % 32 = 0);
ALTER TABLE versions ALTER COLUMN lists SET STORAGE EXTERNAL;
ALTER TABLE versions ADD CHECK (octet_length(lists) = 0 OR octet_length(blocks) = 0);

-- prune_after: from when on it is worth planning this file's versions; null: it has one that lives, and nothing else.
ALTER TABLE files ADD prune_after timestamptz;
CREATE INDEX files_due ON files (vault_id, archive_id, prune_after) WHERE prune_after IS NOT NULL;

ALTER TABLE archives
  ADD version_count     bigint NOT NULL DEFAULT 0,
  ADD live_files        bigint NOT NULL DEFAULT 0,   -- files that exist and have content
  ADD retention_applied bytea,                       -- SHA-256 of the policy and holds its files were last planned with
  ADD frozen_at         timestamptz,                 -- retention deletes nothing here until somebody has looked
  ADD expired_versions  bigint NOT NULL DEFAULT 0,   -- by retention, since expired_since: what the cap is about
  ADD expired_since     timestamptz,
  ADD over_cap_versions bigint NOT NULL DEFAULT 0,   -- somebody has looked: so many may go once, all the same,
  ADD over_cap_digest   bytea,                       -- under this policy and these holds
  ADD pruned_at         timestamptz,
  -- Files that were there when the watch began, and how many of them were changed or deleted since.
  ADD watch_since       timestamptz,
  ADD watch_before_seq  bigint NOT NULL DEFAULT 0,
  ADD watch_live_files  bigint NOT NULL DEFAULT 0,
  ADD watch_replaced    bigint NOT NULL DEFAULT 0;

ALTER TABLE runs
  ADD before_seq bigint NOT NULL DEFAULT 0,          -- the archive's newest seq when it began: "to just before this run"
  ADD suspicious boolean NOT NULL DEFAULT false;     -- the watch for mass changes struck during it

-- What nobody may delete. Never updated but for its release.
CREATE TABLE holds (
  vault_id             bigint NOT NULL REFERENCES vaults,
  hold_id              bigint GENERATED ALWAYS AS IDENTITY,
  policy               jsonb NOT NULL,               -- storage/archive/retention/hold-policy.ts
  placed_at            timestamptz NOT NULL DEFAULT now(),
  release_effective_at timestamptz,
  PRIMARY KEY (vault_id, hold_id)
);
-- Whoever writes a hold waits for the deleter at work in its vault, and no deleter begins before the hold is committed.
CREATE FUNCTION bump_hold_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE vaults SET hold_epoch = hold_epoch + 1 WHERE vault_id = coalesce(NEW.vault_id, OLD.vault_id);
  RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER bump_hold_epoch BEFORE INSERT OR UPDATE OR DELETE ON holds FOR EACH ROW EXECUTE FUNCTION bump_hold_epoch();

-- A reader's lease on a moment of an archive: what was current then stays until the lease ends.
CREATE TABLE restores (
  vault_id    bigint NOT NULL,
  archive_id  bigint NOT NULL,
  seq         bigint NOT NULL,
  lease_until timestamptz NOT NULL,
  PRIMARY KEY (vault_id, archive_id, seq)
);

-- Each transaction adds a row; a job folds them together. Nobody waits for a counter.
CREATE TABLE usage_deltas (
  vault_id         bigint NOT NULL,
  delta_id         bigint GENERATED ALWAYS AS IDENTITY,
  logical_bytes    bigint NOT NULL DEFAULT 0,
  stored_bytes     bigint NOT NULL DEFAULT 0,
  referenced_bytes bigint NOT NULL DEFAULT 0,
  object_bytes     bigint NOT NULL DEFAULT 0,
  versions         bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (vault_id, delta_id)
);
CREATE TABLE vault_usage (
  vault_id         bigint PRIMARY KEY,
  logical_bytes    bigint NOT NULL,                  -- plain bytes of every version kept
  stored_bytes     bigint NOT NULL,                  -- blocks that have a row
  referenced_bytes bigint NOT NULL,                  -- of those, blocks that a version or list refers to
  object_bytes     bigint NOT NULL,                  -- objects that have a row: what the store holds or may hold
  versions         bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE fence (
  only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  nonce      text,
  previous   text,
  renewed_at timestamptz
);
INSERT INTO fence DEFAULT VALUES;

-- Blocks and lists that were found damaged, and (once somebody has looked) the versions that name them.
CREATE TABLE damage (
  vault_id      bigint NOT NULL,
  hash          bytea NOT NULL,
  found_at      timestamptz NOT NULL DEFAULT now(),
  users_found_at timestamptz,
  PRIMARY KEY (vault_id, hash)
);
CREATE TABLE damage_versions (
  vault_id   bigint NOT NULL,
  hash       bytea NOT NULL,
  archive_id bigint NOT NULL,
  file_id    bigint NOT NULL,
  seq        bigint NOT NULL,
  PRIMARY KEY (vault_id, hash, archive_id, file_id, seq)
);
CREATE INDEX damage_versions_by_file ON damage_versions (vault_id, archive_id, file_id, seq);

-- What a person has to look at. vault_id 0: about the whole catalog; archive_id 0: about the whole vault. An alert that
-- nobody has reviewed yet is raised again by counting.
CREATE TABLE alerts (
  vault_id    bigint NOT NULL,
  alert_id    bigint GENERATED ALWAYS AS IDENTITY,
  archive_id  bigint NOT NULL DEFAULT 0,
  kind        text NOT NULL,
  details     jsonb NOT NULL DEFAULT '{}',
  raised_at   timestamptz NOT NULL DEFAULT now(),
  latest_at   timestamptz NOT NULL DEFAULT now(),
  count       integer NOT NULL DEFAULT 1,
  reviewed_at timestamptz,
  reviewed_by text,
  PRIMARY KEY (vault_id, alert_id)
);
CREATE UNIQUE INDEX alerts_open ON alerts (vault_id, archive_id, kind) WHERE reviewed_at IS NULL;

-- A catalog that is older than these columns.
UPDATE archives a SET
  version_count = (SELECT count(*) FROM versions v WHERE v.vault_id = a.vault_id AND v.archive_id = a.archive_id),
  live_files = (SELECT count(*) FROM (SELECT DISTINCT ON (file_id) size FROM versions v
                 WHERE v.vault_id = a.vault_id AND v.archive_id = a.archive_id ORDER BY file_id, seq DESC) l WHERE l.size > 0);
UPDATE files f SET prune_after = now()
  FROM (SELECT vault_id, archive_id, file_id FROM versions GROUP BY 1, 2, 3 HAVING count(*) > 1 OR bool_or(deleted)) v
 WHERE (f.vault_id, f.archive_id, f.file_id) = (v.vault_id, v.archive_id, v.file_id);
INSERT INTO vault_usage
  SELECT vault_id,
         (SELECT coalesce(sum(size), 0) FROM versions v WHERE v.vault_id = vaults.vault_id),
         (SELECT coalesce(sum(byte_length), 0) FROM blocks b WHERE b.vault_id = vaults.vault_id),
         (SELECT coalesce(sum(byte_length), 0) FROM blocks b WHERE b.vault_id = vaults.vault_id AND refs > 0),
         (SELECT coalesce(sum(size_bytes), 0) FROM objects o WHERE o.vault_id = vaults.vault_id),
         (SELECT count(*) FROM versions v WHERE v.vault_id = vaults.vault_id)
    FROM vaults;
