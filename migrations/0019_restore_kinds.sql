-- Up Migration
-- Restores of every kind are rows of one history: sent while they are made, staged in the bucket, or written by a device's agent,
-- which has no format. An `export` is blocks and manifest as they are.
ALTER TABLE restore_requests
  DROP CONSTRAINT restore_requests_kind_check,
  DROP CONSTRAINT restore_requests_format_check,
  ALTER COLUMN format DROP NOT NULL,
  ADD CONSTRAINT restore_requests_kind_check CHECK (kind IN ('streamed', 'staged', 'pushed')),
  ADD CONSTRAINT restore_requests_format_check CHECK ((kind = 'pushed') = (format IS NULL) AND (format IS NULL OR format IN ('zip', 'tar', 'export')));
