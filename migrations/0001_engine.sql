-- Up Migration
-- The engine's tables. Every one of them has vault_id first in its key, and every hot statement filters on it
-- (storage/catalog/statements.test.ts), so that the catalog can be sharded by vault without a change of code.

-- One row: who this catalog is, and which code may open it. A migration that older code cannot live with raises
-- `breaking`; code refuses a catalog whose number it does not know (storage/catalog/migrate.ts).
CREATE TABLE catalog (
  only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  catalog_id uuid NOT NULL DEFAULT gen_random_uuid(),
  breaking   integer NOT NULL
);
INSERT INTO catalog (breaking) VALUES (1);

-- A user's data key and dedup domain. No counters here: only deleters of versions, and holds, lock this row.
CREATE TABLE vaults (
  vault_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    bigint NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- How each generation of a vault's key is kept: sealed by the key service (standard), wrapped by the archive
-- password (password), or only a check value (custom). Rows are never updated or deleted.
CREATE TABLE vault_keys (
  vault_id   bigint NOT NULL REFERENCES vaults,
  generation integer NOT NULL CHECK (generation >= 1),
  level      text NOT NULL CHECK (level IN ('standard', 'password', 'custom')),
  record     bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vault_id, generation)
);

CREATE TABLE archives (
  vault_id          bigint NOT NULL REFERENCES vaults,
  archive_id        bigint GENERATED ALWAYS AS IDENTITY,
  device_id         bigint NOT NULL,
  state             text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'cold', 'expired')),
  next_seq          bigint NOT NULL DEFAULT 1,
  next_file_id      bigint NOT NULL DEFAULT 1,
  last_committed_at timestamptz,
  purge_epoch       bigint NOT NULL DEFAULT 0,
  created_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vault_id, archive_id)
) WITH (fillfactor = 70);

-- Bytes under one key in object storage. The row is there before the bytes (writing) and until after them (dead).
CREATE TABLE objects (
  vault_id   bigint NOT NULL,
  object_id  bigint GENERATED ALWAYS AS IDENTITY,
  key        text NOT NULL,
  state      text NOT NULL CHECK (state IN ('writing', 'live', 'dead')),
  size_bytes bigint NOT NULL CHECK (size_bytes > 0),
  live_bytes bigint NOT NULL CHECK (live_bytes >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  next_at    timestamptz,          -- writing: end of the lease; dead: when the bytes may go
  PRIMARY KEY (vault_id, object_id),
  UNIQUE (vault_id, key)
);
-- Its condition is not about the state, so that no look-up of one object by its key and state is led here.
CREATE INDEX objects_due ON objects (vault_id, next_at) WHERE next_at IS NOT NULL;

-- Nothing indexes refs, claimed_until or damaged_at: their updates must be able to stay HOT.
CREATE TABLE blocks (
  vault_id      bigint NOT NULL,
  hash          bytea NOT NULL CHECK (octet_length(hash) = 32),
  object_id     bigint NOT NULL,
  byte_offset   integer NOT NULL CHECK (byte_offset >= 0),
  byte_length   integer NOT NULL CHECK (byte_length > 0),
  refs          integer NOT NULL DEFAULT 0 CHECK (refs >= 0),
  claimed_until timestamptz NOT NULL,
  damaged_at    timestamptz,
  PRIMARY KEY (vault_id, hash),
  FOREIGN KEY (vault_id, object_id) REFERENCES objects (vault_id, object_id)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX blocks_by_object ON blocks (vault_id, object_id);

-- One path each. parent_id 0 is the root, which has no row. `folder`: something lies in it, or did. `implied`: made for
-- that reason, before (or without) a version of its own; such a folder is shown from the commit `created_seq` on.
CREATE TABLE files (
  vault_id    bigint NOT NULL,
  archive_id  bigint NOT NULL,
  file_id     bigint NOT NULL,
  parent_id   bigint NOT NULL,
  name        bytea NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 2048),
  folder      boolean NOT NULL,
  implied     boolean NOT NULL,
  created_seq bigint NOT NULL,
  UNIQUE (vault_id, archive_id, parent_id, name),
  PRIMARY KEY (vault_id, archive_id, file_id)
);

CREATE TABLE versions (
  vault_id     bigint NOT NULL,
  archive_id   bigint NOT NULL,
  file_id      bigint NOT NULL,
  seq          bigint NOT NULL,
  committed_at timestamptz NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('file', 'directory', 'symlink')),
  deleted      boolean NOT NULL,
  size         bigint NOT NULL CHECK (size >= 0),
  mtime        bigint NOT NULL,    -- milliseconds since the Unix epoch, as the device said: data, never a clock
  attributes   bytea NOT NULL,     -- sealed by the agent
  mac          bytea NOT NULL CHECK (octet_length(mac) = 32),
  blocks       bytea NOT NULL CHECK (octet_length(blocks) % 32 = 0),
  PRIMARY KEY (vault_id, archive_id, file_id, seq)
);
CREATE INDEX versions_by_time ON versions (vault_id, archive_id, committed_at) INCLUDE (seq);
-- Ciphertext and hashes do not compress: do not try.
ALTER TABLE versions ALTER COLUMN attributes SET STORAGE EXTERNAL;
ALTER TABLE versions ALTER COLUMN blocks SET STORAGE EXTERNAL;

-- What makes a repeated commit answer as before, and another body under the same id be refused.
CREATE TABLE commits (
  vault_id     bigint NOT NULL,
  archive_id   bigint NOT NULL,
  commit_id    bytea NOT NULL CHECK (octet_length(commit_id) = 16),
  run_id       bigint NOT NULL,
  body_sha256  bytea NOT NULL,
  first_seq    bigint NOT NULL,
  count        integer NOT NULL CHECK (count > 0),
  committed_at timestamptz NOT NULL,
  PRIMARY KEY (vault_id, archive_id, commit_id)
);

CREATE TABLE runs (
  vault_id      bigint NOT NULL,
  archive_id    bigint NOT NULL,
  run_id        bigint GENERATED ALWAYS AS IDENTITY,
  started_at    timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at   timestamptz,
  outcome       text CHECK (outcome IN ('completed', 'failed', 'interrupted')),
  reason        text NOT NULL DEFAULT '',
  roots         bytea NOT NULL,    -- paths joined by NUL, which no path holds
  counts        jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (vault_id, archive_id, run_id),
  CHECK ((finished_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX runs_open ON runs (vault_id, archive_id) WHERE finished_at IS NULL;

-- The files a run left out, and why. Named by the digest of the path, so that a repeated message adds nothing.
CREATE TABLE run_skipped (
  vault_id    bigint NOT NULL,
  archive_id  bigint NOT NULL,
  run_id      bigint NOT NULL,
  path_sha256 bytea NOT NULL,
  path        bytea NOT NULL,
  reason      text NOT NULL,
  detail      text NOT NULL,
  PRIMARY KEY (vault_id, archive_id, run_id, path_sha256)
);
