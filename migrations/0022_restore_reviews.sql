-- Up Migration
-- What one asker restores of others' archives in a day, and the stop when that is more than an organization allows
-- (docs/decisions/restoring.md, "Thresholds").

-- Who was shown a program's secret last: its restores count as theirs. Null: as its own, for nobody knows.
ALTER TABLE api_clients ADD COLUMN secret_shown_to bigint;

-- hours: [{ hour: since the epoch, bytes }], at most those of a day. epoch: raised when somebody released a block, and what was
-- charged before counts no more.
CREATE TABLE restore_meters (
  tenant_id  bigint NOT NULL,
  asker_kind text   NOT NULL CHECK (asker_kind IN ('user', 'client')),
  asker_id   bigint NOT NULL,
  epoch      bigint NOT NULL DEFAULT 1,
  hours      jsonb  NOT NULL DEFAULT '[]',
  PRIMARY KEY (tenant_id, asker_kind, asker_id)
);

-- What a restore that runs counts with, until its end says how much it was.
CREATE TABLE restore_charges (
  tenant_id  bigint NOT NULL,
  restore_id bigint NOT NULL,
  asker_kind text   NOT NULL CHECK (asker_kind IN ('user', 'client')),
  asker_id   bigint NOT NULL,
  epoch      bigint NOT NULL,
  hour       bigint NOT NULL,
  bytes      bigint NOT NULL CHECK (bytes >= 0),
  PRIMARY KEY (tenant_id, restore_id)
);
CREATE INDEX restore_charges_by_hour ON restore_charges (hour);

CREATE TABLE restore_blocks (
  block_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint      NOT NULL,
  asker_kind      text        NOT NULL CHECK (asker_kind IN ('user', 'client')),
  asker_id        bigint      NOT NULL,
  asker_name      text        NOT NULL,
  -- The restore that was refused; null: it had no row yet. And whose archive it was of.
  restore_id      bigint,
  user_id         bigint      NOT NULL,
  vault_id        bigint      NOT NULL,
  archive_id      bigint      NOT NULL,
  restored_bytes  bigint      NOT NULL,
  asked_bytes     bigint      NOT NULL,
  threshold_bytes bigint      NOT NULL,
  since           timestamptz NOT NULL DEFAULT now(),
  state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'kept', 'released')),
  reviewer_kind   text,
  reviewer_id     bigint,
  reviewer_name   text,
  reviewed_at     timestamptz,
  review_reason   text        CHECK (length(review_reason) BETWEEN 1 AND 500),
  version         bigint      NOT NULL DEFAULT 1,
  CHECK ((state = 'open') = (reviewed_at IS NULL))
);
CREATE INDEX restore_blocks_of_tenant ON restore_blocks (tenant_id, block_id);
-- Whoever is stopped is so once, until somebody releases them.
CREATE UNIQUE INDEX restore_blocks_in_force ON restore_blocks (tenant_id, asker_kind, asker_id) WHERE state <> 'released';

-- What somebody has kept of an archive.
CREATE INDEX restore_requests_of_asker_lapsing ON restore_requests (tenant_id, asker_kind, asker_id, vault_id, archive_id, lapses_at);

-- The history: in a period, of whom, and what is too old.
CREATE INDEX restore_requests_by_time ON restore_requests (tenant_id, created_at);
CREATE INDEX restore_requests_ended ON restore_requests (coalesce(ended_at, seen_at, begun_at)) WHERE begun_at IS NOT NULL;
CREATE INDEX restore_requests_never_begun ON restore_requests (lapses_at) WHERE begun_at IS NULL;
