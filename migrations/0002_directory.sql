-- Up Migration
-- The directory: who may do what. One row per tenant, organization, user and device; the engine's tables know users
-- and devices by number only, and nothing here refers to the engine by foreign key, so that the catalog can be
-- sharded by vault while the directory stays where it is.

CREATE TABLE tenants (
  tenant_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- A node of a tenant's tree. Its registration key lets agents find it; together with a user's sign-in it makes devices.
CREATE TABLE organizations (
  organization_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id        bigint NOT NULL REFERENCES tenants,
  parent_id        bigint,
  name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  registration_key text NOT NULL UNIQUE,
  created_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, organization_id),
  FOREIGN KEY (tenant_id, parent_id) REFERENCES organizations (tenant_id, organization_id),
  CHECK (parent_id <> organization_id)
);
CREATE UNIQUE INDEX organizations_root ON organizations (tenant_id) WHERE parent_id IS NULL;
CREATE INDEX organizations_by_parent ON organizations (tenant_id, parent_id);

-- password_hash holds its own algorithm, parameters and salt. Names are compared without regard to case.
CREATE TABLE users (
  user_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint NOT NULL,
  organization_id bigint NOT NULL,
  name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 254),
  password_hash   text NOT NULL,
  state           text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'blocked', 'deactivated')),
  created_at      timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, user_id),
  FOREIGN KEY (tenant_id, organization_id) REFERENCES organizations (tenant_id, organization_id)
);
CREATE UNIQUE INDEX users_by_name ON users (tenant_id, lower(name));
CREATE INDEX users_by_organization ON users (organization_id);

-- One agent installation. A replaced device keeps its row and gives its guid and archive to the one after it, so guid
-- and archive are unique among those that are not replaced. Tokens are kept as SHA-256: they are random, so no more is needed.
CREATE TABLE devices (
  device_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id     bigint NOT NULL,
  user_id       bigint NOT NULL,
  guid          bigint NOT NULL CHECK (guid > 0),
  name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  platform      text NOT NULL CHECK (platform IN ('linux', 'darwin', 'win32', 'other')),
  agent_version text NOT NULL CHECK (length(agent_version) BETWEEN 1 AND 64),
  token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  vault_id      bigint NOT NULL,
  archive_id    bigint NOT NULL,
  state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'replaced', 'deauthorized', 'blocked', 'deactivated')),
  replaces_id   bigint REFERENCES devices,
  created_at    timestamptz NOT NULL DEFAULT now(),
  last_seen_at  timestamptz,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE UNIQUE INDEX devices_by_guid ON devices (guid) WHERE state <> 'replaced';
CREATE UNIQUE INDEX devices_by_archive ON devices (vault_id, archive_id) WHERE state <> 'replaced';
CREATE INDEX devices_by_user ON devices (user_id);
