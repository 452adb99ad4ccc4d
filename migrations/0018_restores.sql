-- Up Migration
-- Restores: who asked for what of which archive, as of when, and how it went (docs/decisions/restoring.md). The row is there
-- before the first byte, and is the history; so it names everything as it was then, and stays when it has ended.

-- planned: may be begun while the lease of its moment lasts. A running one is heard of every few seconds by whoever
-- streams it (`attempt`); one that is not heard of any more has ended with its process.
CREATE TABLE restore_requests (
  restore_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint      NOT NULL,
  user_id         bigint      NOT NULL, -- whose archive
  guid            bigint      NOT NULL,
  vault_id        bigint      NOT NULL,
  archive_id      bigint      NOT NULL,
  asker_kind      text        NOT NULL CHECK (asker_kind IN ('user', 'client')),
  asker_id        bigint      NOT NULL,
  asker_name      text        NOT NULL,
  address         text,
  kind            text        NOT NULL CHECK (kind IN ('streamed')),
  format          text        NOT NULL CHECK (format IN ('zip', 'tar')),
  -- { paths: bytes as base64url, deleted }
  selection       jsonb       NOT NULL,
  seq             bigint      NOT NULL,
  moment_at       timestamptz,
  reason          text        CHECK (length(reason) BETWEEN 1 AND 500),
  permission      text        NOT NULL,
  planned_files   bigint      NOT NULL,
  planned_folders bigint      NOT NULL,
  planned_links   bigint      NOT NULL,
  planned_bytes   bigint      NOT NULL,
  planned_damaged bigint      NOT NULL,
  planned_gone    bigint      NOT NULL,
  planned_missing bigint      NOT NULL,
  state           text        NOT NULL DEFAULT 'planned'
    CHECK (state IN ('planned', 'running', 'completed', 'broken', 'cancelled', 'lapsed', 'refused')),
  attempt         uuid,
  attempts        integer     NOT NULL DEFAULT 0,
  done_files      bigint      NOT NULL DEFAULT 0,
  done_bytes      bigint      NOT NULL DEFAULT 0,
  sent_bytes      bigint      NOT NULL DEFAULT 0,
  left_out        bigint      NOT NULL DEFAULT 0,
  -- The first of them: [{ path, reason }]
  left_out_first  jsonb       NOT NULL DEFAULT '[]',
  -- At what earlier tries broke off: [{ path, reason }]
  leave_out       jsonb       NOT NULL DEFAULT '[]',
  why             text,
  created_at      timestamptz NOT NULL DEFAULT now(),
  lapses_at       timestamptz NOT NULL,
  begun_at        timestamptz,
  seen_at         timestamptz,
  ended_at        timestamptz,
  version         bigint      NOT NULL DEFAULT 1,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id),
  CHECK ((state = 'running') <= (attempt IS NOT NULL AND seen_at IS NOT NULL))
);
CREATE INDEX restore_requests_by_tenant ON restore_requests (tenant_id, restore_id);
CREATE INDEX restore_requests_of_device ON restore_requests (tenant_id, guid, restore_id);
CREATE INDEX restore_requests_of_asker ON restore_requests (tenant_id, asker_kind, asker_id, restore_id);
CREATE INDEX restore_requests_of_user ON restore_requests (user_id, restore_id);
