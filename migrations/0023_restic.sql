-- Up Migration
-- Repositories of restic (docs/decisions/restic.md): devices without an agent, whose archives hold files as they came.

-- Who writes an archive. `agent`: versions sealed by an agent of ours, in runs. `plain`: files under names of their own,
-- one at a time, whose bytes are not ours to open; versions of it have no MAC, and no agent commits to it.
ALTER TABLE archives ADD kind text NOT NULL DEFAULT 'agent' CHECK (kind IN ('agent', 'plain'));

-- A repository is a device of its user: it has a guid, a name and an archive, and no agent that could have a token. Its name
-- stands in its URL, so it is one of its user's repositories alone, in every state.
ALTER TABLE devices
  ADD kind text NOT NULL DEFAULT 'agent' CHECK (kind IN ('agent', 'restic')),
  ALTER COLUMN token_sha256 DROP NOT NULL,
  ADD CHECK (kind = 'restic' OR token_sha256 IS NOT NULL),
  ADD CHECK (kind = 'agent' OR (token_sha256 IS NULL AND registered_with IS NULL AND replaces_id IS NULL AND state <> 'replaced')),
  ADD CHECK (kind = 'agent' OR (name ~ '^[A-Za-z0-9._-]{1,64}$' AND name NOT IN ('.', '..')));
CREATE UNIQUE INDEX devices_repositories ON devices (user_id, name) WHERE kind = 'restic';

-- No licence is taken for a repository.
DROP TRIGGER note_device_counting ON devices;
CREATE TRIGGER note_device_counting AFTER UPDATE OF state ON devices FOR EACH ROW
  WHEN ((OLD.state = 'deactivated') <> (NEW.state = 'deactivated') AND NEW.kind = 'agent') EXECUTE FUNCTION note_device_counting();

-- What a restic program signs in with: for one repository, and in one mode. `append`: it deletes nothing but locks; `read`:
-- it writes nothing but locks. Kept as SHA-256: they are random, so no more is needed. A revoked one stays, to be shown.
CREATE TABLE restic_tokens (
  token_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id     bigint      NOT NULL,
  user_id       bigint      NOT NULL,
  guid          bigint      NOT NULL,
  name          text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  mode          text        NOT NULL CHECK (mode IN ('full', 'append', 'read')),
  token_sha256  bytea       NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  created_at    timestamptz NOT NULL DEFAULT now(),
  created_by    text        NOT NULL CHECK (length(created_by) BETWEEN 1 AND 255),
  expires_at    timestamptz,
  last_used_at  timestamptz,
  revoked_at    timestamptz,
  version       bigint      NOT NULL DEFAULT 1,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE INDEX restic_tokens_of_repository ON restic_tokens (tenant_id, guid, token_id);
CREATE INDEX restic_tokens_of_user ON restic_tokens (user_id, token_id);
