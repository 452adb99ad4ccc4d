-- Up Migration
-- The directory as a tree with states, settings and roles. States are each row's own: what holds for a device is the
-- strictest on the way up to its tenant, asked when it matters and copied nowhere, so that lifting one lifts exactly
-- what it did (docs/decisions/directory.md). `version` is what an ETag is made of: every change of a row raises it.

ALTER TABLE tenants
  ADD state      text   NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'offboarding')),
  ADD version    bigint NOT NULL DEFAULT 1;

-- `path`: the ids from the top down to its own. "In this subtree" is one comparison of it.
ALTER TABLE organizations
  ADD path    bigint[],
  ADD state   text   NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'blocked', 'deactivated')),
  ADD version bigint NOT NULL DEFAULT 1;
WITH RECURSIVE tree AS (
  SELECT organization_id, ARRAY[organization_id] AS path FROM organizations WHERE parent_id IS NULL
  UNION ALL
  SELECT o.organization_id, tree.path || o.organization_id FROM organizations o JOIN tree ON o.parent_id = tree.organization_id)
UPDATE organizations o SET path = tree.path FROM tree WHERE tree.organization_id = o.organization_id;
ALTER TABLE organizations
  ALTER path SET NOT NULL,
  ADD CHECK (path[cardinality(path)] = organization_id),
  ADD CHECK (cardinality(path) BETWEEN 1 AND 16);
CREATE INDEX organizations_by_path ON organizations USING gin (path);
-- A tenant may have several organizations at its top.
DROP INDEX organizations_root;

-- What an organization has said itself. What holds for it follows from the path (server/directory/settings/).
CREATE TABLE organization_settings (
  tenant_id       bigint  NOT NULL,
  organization_id bigint  NOT NULL,
  name            text    NOT NULL,
  value           jsonb   NOT NULL,
  locked          boolean NOT NULL DEFAULT false,
  PRIMARY KEY (organization_id, name),
  FOREIGN KEY (tenant_id, organization_id) REFERENCES organizations (tenant_id, organization_id)
);
INSERT INTO organization_settings (tenant_id, organization_id, name, value)
SELECT tenant_id, organization_id, 'retention.policy', retention FROM organizations WHERE retention IS NOT NULL;
ALTER TABLE organizations DROP retention;

-- Without a password_hash: invited, or signed in by an identity provider only.
ALTER TABLE users
  ALTER password_hash DROP NOT NULL,
  ADD display_name text CHECK (length(display_name) BETWEEN 1 AND 255),
  ADD email        text CHECK (length(email) BETWEEN 3 AND 254),
  ADD version      bigint NOT NULL DEFAULT 1;

-- A role, how far, and where it was given: `tree` counts only while its holder is in that organization.
CREATE TABLE user_roles (
  tenant_id       bigint NOT NULL,
  user_id         bigint NOT NULL,
  role            text   NOT NULL,
  scope           text   NOT NULL CHECK (scope IN ('self', 'tree', 'all')),
  organization_id bigint NOT NULL,
  granted_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, role, organization_id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id),
  FOREIGN KEY (tenant_id, organization_id) REFERENCES organizations (tenant_id, organization_id)
);
CREATE INDEX user_roles_by_organization ON user_roles (organization_id);
INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id)
SELECT tenant_id, user_id, 'Customer Cloud Admin', 'all', organization_id FROM users WHERE administrator;
ALTER TABLE users DROP administrator;

ALTER TABLE devices ADD version bigint NOT NULL DEFAULT 1;

-- Those who run the server: they make, suspend and offboard tenants, and are users of none.
CREATE TABLE operators (
  operator_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text   NOT NULL CHECK (length(name) BETWEEN 1 AND 254),
  password_hash text   NOT NULL,
  state         text   NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'blocked')),
  version       bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX operators_by_name ON operators (lower(name));

-- Changes that were made, by a key of whoever asked: asked again they are answered as the first time, and not made
-- again. Written in the transaction of the change, so that it also tells what became of a COMMIT of unknown outcome.
CREATE TABLE requests_made (
  requester      text        NOT NULL CHECK (length(requester) BETWEEN 1 AND 64),
  key            text        NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
  request_sha256 bytea       NOT NULL CHECK (octet_length(request_sha256) = 32),
  status         integer     NOT NULL,
  answer         jsonb       NOT NULL,
  made_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (requester, key)
);
CREATE INDEX requests_made_by_time ON requests_made (made_at);
