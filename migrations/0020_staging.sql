-- Up Migration
-- Staged restores: archives that a worker has made and put into the bucket, sealed, to be fetched as often as wanted until they
-- expire (docs/decisions/restoring.md).

-- A worker makes it (again) from `stage_after` on, so often; null: nobody does by themselves. A password is in no row, so
-- what it opens waits to be begun with it.
ALTER TABLE restore_requests
  ADD COLUMN stage_after   timestamptz,
  ADD COLUMN stage_tries   smallint NOT NULL DEFAULT 0,
  -- What a try came to in the bucket that found no room for more: the next takes so much at once.
  ADD COLUMN stage_bytes   bigint   NOT NULL DEFAULT 0,
  -- Of a staged archive, by all who fetched it.
  ADD COLUMN fetched_bytes bigint   NOT NULL DEFAULT 0;
CREATE INDEX restore_requests_to_stage ON restore_requests (stage_after) WHERE stage_after IS NOT NULL;

-- One try of one: what it may take up in the bucket, and what it has. The row is there before its first object and goes after
-- the last. It refers to nothing, so that what it is of may go at once, and its objects by and by.
CREATE TABLE staged_archives (
  staged_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id      bigint      NOT NULL,
  user_id        bigint      NOT NULL, -- whose archive
  restore_id     bigint      NOT NULL,
  -- Whom its bytes count for: of an API client, whoever was shown its secret.
  asker_kind     text        NOT NULL CHECK (asker_kind IN ('user', 'client')),
  asker_id       bigint      NOT NULL,
  attempt        uuid        NOT NULL UNIQUE,
  -- staging: it grows; ready: it is whole, and fetched; dead: its key is gone, and its objects are to go.
  state          text        NOT NULL DEFAULT 'staging' CHECK (state IN ('staging', 'ready', 'dead')),
  -- The key of its frames, sealed by the key service.
  key_record     bytea,
  reserved_bytes bigint      NOT NULL CHECK (reserved_bytes >= 0),
  stored_bytes   bigint      NOT NULL DEFAULT 0,
  -- Of the zip or tar; null: not known yet.
  length         bigint,
  part_frames    integer     NOT NULL CHECK (part_frames > 0),
  dead_at        timestamptz,
  CHECK ((state = 'dead') = (key_record IS NULL)),
  CHECK ((state = 'dead') = (dead_at IS NOT NULL)),
  CHECK ((state = 'ready') <= (length IS NOT NULL))
);
CREATE UNIQUE INDEX staged_archives_live ON staged_archives (restore_id) WHERE state <> 'dead';
CREATE INDEX staged_archives_of_tenant ON staged_archives (tenant_id, user_id);
CREATE INDEX staged_archives_of_asker ON staged_archives (asker_kind, asker_id);

-- Who fetched of it: an act is written of the first time that somebody does from an address, by a link or signed in (ends_at 0).
CREATE TABLE staged_fetches (
  staged_id bigint NOT NULL REFERENCES staged_archives (staged_id),
  tenant_id bigint NOT NULL,
  ends_at   bigint NOT NULL, -- of the link, in seconds since 1970
  address   text   NOT NULL,
  first_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (staged_id, ends_at, address)
);
