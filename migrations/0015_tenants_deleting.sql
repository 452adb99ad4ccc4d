-- Up Migration
-- Tenants whose data is deleted, and what is left of them: the row, with what they had and when it went, so that the id is
-- nobody else's ever and somebody can still be told. `deleting` never goes back.
ALTER TABLE tenants
  DROP CONSTRAINT tenants_state_check,
  DROP CONSTRAINT tenants_check,
  ADD CONSTRAINT tenants_state_check CHECK (state IN ('active', 'suspended', 'offboarding', 'deleting', 'deleted')),
  ADD CONSTRAINT tenants_leaving CHECK ((state IN ('offboarding', 'deleting', 'deleted')) = (delete_after IS NOT NULL)),
  ADD deleting_at timestamptz,
  ADD deleting_by text CHECK (length(deleting_by) BETWEEN 1 AND 64),  -- as `operator 3`
  ADD had         jsonb,                                              -- figures of when deleting began
  ADD deleted_at  timestamptz,
  -- For how long acts are kept once the organizations whose setting it was are gone; null: that could not be read.
  ADD acts_days   integer,
  ADD CONSTRAINT tenants_deleting CHECK ((state IN ('deleting', 'deleted')) = (deleting_at IS NOT NULL)),
  ADD CONSTRAINT tenants_deleting_by CHECK ((deleting_at IS NULL) = (deleting_by IS NULL)),
  ADD CONSTRAINT tenants_had CHECK ((deleting_at IS NULL) = (had IS NULL)),
  ADD CONSTRAINT tenants_deleted CHECK ((state = 'deleted') = (deleted_at IS NOT NULL));
CREATE INDEX tenants_deleting_now ON tenants (tenant_id) WHERE state = 'deleting';
CREATE INDEX tenants_deleted ON tenants (tenant_id) WHERE state = 'deleted';

-- Whoever deletes a device is asked whether another has taken its place: without this, by a look at all devices there are.
CREATE INDEX devices_by_replaced ON devices (replaces_id) WHERE replaces_id IS NOT NULL;
