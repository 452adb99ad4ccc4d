-- Up Migration
-- What devices are told to do (docs/decisions/restoring.md, "Pushed"): a row for each, told again on every channel until it has
-- ended; and which devices have a channel open. The history of a pushed restore is its row in restore_requests.

ALTER TABLE restore_requests
  -- Of a pushed one: the device that writes it, and { name, folder: base64url or null, existing, permissions }.
  ADD COLUMN target_guid bigint,
  ADD COLUMN pushed jsonb,
  -- As its agent told: { outcome, counts }
  ADD COLUMN pushed_end jsonb,
  ADD CONSTRAINT restore_requests_pushed_check CHECK ((kind = 'pushed') = (target_guid IS NOT NULL AND pushed IS NOT NULL));

-- queued: the device was not told yet; sent: it was, on some channel; running: it has begun; cancelling: it was told, and is
-- to stop; ended: kept for a while, for an agent that did not hear that its end was taken.
CREATE TABLE device_commands (
  command_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint      NOT NULL,
  user_id         bigint      NOT NULL, -- whose device
  guid            bigint      NOT NULL,
  kind            text        NOT NULL CHECK (kind IN ('restore', 'browse')),
  restore_id      bigint,
  -- Of a browse: { path, after: base64url or null, limit }
  body            jsonb,
  state           text        NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'running', 'cancelling', 'ended')),
  -- Those that others took the place of.
  attempts_before uuid[]      NOT NULL DEFAULT '{}',
  -- Of a browse, as the agent sent it; gone with the row as soon as it was read.
  answer          bytea,
  created_at      timestamptz NOT NULL DEFAULT now(),
  expires_at      timestamptz NOT NULL,
  ended_at        timestamptz,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id),
  CHECK ((kind = 'restore') = (restore_id IS NOT NULL)),
  CHECK ((kind = 'browse') = (body IS NOT NULL)),
  CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX device_commands_open ON device_commands (guid, command_id) WHERE state <> 'ended';
CREATE INDEX device_commands_to_end ON device_commands (expires_at) WHERE state <> 'ended';
CREATE INDEX device_commands_ended ON device_commands (ended_at) WHERE state = 'ended';
CREATE INDEX device_commands_answered ON device_commands (ended_at) WHERE state = 'ended' AND kind = 'browse';
CREATE INDEX device_commands_of_restore ON device_commands (restore_id) WHERE restore_id IS NOT NULL;
CREATE INDEX device_commands_of_user ON device_commands (tenant_id, user_id);

-- A device's newest channel. is_open with heard_at of the last minutes: the device is there.
CREATE TABLE device_channels (
  guid         bigint      PRIMARY KEY,
  tenant_id    bigint      NOT NULL,
  user_id      bigint      NOT NULL,
  channel      uuid        NOT NULL,
  is_open      boolean     NOT NULL,
  connected_at timestamptz NOT NULL DEFAULT now(),
  heard_at     timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE INDEX device_channels_of_user ON device_channels (tenant_id, user_id);
