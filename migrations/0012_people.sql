-- Up Migration
-- Users, devices, archives that go cold, and backup plans.

-- A mail address is one person's, like a name: an identity provider's users are found by it.
CREATE UNIQUE INDEX users_by_email ON users (tenant_id, lower(email)) WHERE email IS NOT NULL;

-- Deactivated, each keeps what it was before: reactivating lifts the deactivation and nothing else.
ALTER TABLE users ADD state_before text CHECK (state_before IN ('active', 'blocked'));
ALTER TABLE devices ADD state_before text CHECK (state_before IN ('active', 'blocked', 'deauthorized'));
CREATE INDEX devices_by_tenant ON devices (tenant_id, device_id);

-- The last run that ended well is what alerts and health are about: one step along an index, however many failed since.
CREATE INDEX runs_completed ON runs (vault_id, archive_id, run_id) WHERE outcome = 'completed';

-- A cold archive expires on a date that administrators may change; an expired one is shown to nobody and deleted some
-- days later.
ALTER TABLE archives
  ADD cold_until timestamptz,
  ADD expired_at timestamptz;
CREATE INDEX archives_cold ON archives (vault_id, cold_until) WHERE state = 'cold';
CREATE INDEX archives_expired ON archives (vault_id, expired_at) WHERE state = 'expired';

-- What is backed up, and when ("backup sets"): of an organization, for all devices in it and below, or
-- of one device. Deleting a plan deletes nothing of what it has backed up.
CREATE TABLE plans (
  plan_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint NOT NULL,
  organization_id bigint,
  guid            bigint,            -- of a device: whoever takes its place has its plans
  name            text   NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  content         jsonb  NOT NULL,   -- server/directory/devices/plans/shapes.ts
  version         bigint NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (tenant_id, organization_id) REFERENCES organizations (tenant_id, organization_id),
  CHECK ((organization_id IS NULL) <> (guid IS NULL))
);
CREATE UNIQUE INDEX plans_of_organization ON plans (organization_id, lower(name)) WHERE organization_id IS NOT NULL;
CREATE UNIQUE INDEX plans_of_device ON plans (tenant_id, guid, lower(name)) WHERE guid IS NOT NULL;
CREATE INDEX plans_by_tenant ON plans (tenant_id, plan_id);
