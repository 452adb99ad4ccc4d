-- Up Migration
-- How people, operators and programs sign in (docs/decisions/sign-in.md). Whatever is drawn at random is kept as SHA-256;
-- what a person chooses, as Argon2id; what the server has to use again, sealed by the key service.

-- password_once_until: an administrator has set this password; it opens nothing but the door to setting another, and
-- that until then.
ALTER TABLE users
  ADD password_changed_at timestamptz,
  ADD password_once_until timestamptz;
ALTER TABLE operators
  ADD password_changed_at timestamptz;

-- Programs. `client_key` is what they call themselves; `old_secret` still works for a while after a new one was made.
CREATE TABLE api_clients (
  client_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id         bigint      NOT NULL,
  organization_id   bigint      NOT NULL,
  name              text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  client_key        text        NOT NULL UNIQUE CHECK (length(client_key) BETWEEN 1 AND 64),
  secret_sha256     bytea       NOT NULL CHECK (octet_length(secret_sha256) = 32),
  old_secret_sha256 bytea       CHECK (octet_length(old_secret_sha256) = 32),
  old_secret_until  timestamptz,
  permissions       text[]      NOT NULL CHECK (cardinality(permissions) BETWEEN 1 AND 100),
  scope             text        NOT NULL CHECK (scope IN ('tree', 'all')),
  expires_at        timestamptz NOT NULL,
  revoked_at        timestamptz,
  made_by           text        NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT now(),
  last_used_at      timestamptz,
  version           bigint      NOT NULL DEFAULT 1,
  FOREIGN KEY (tenant_id, organization_id) REFERENCES organizations (tenant_id, organization_id),
  CHECK ((old_secret_sha256 IS NULL) = (old_secret_until IS NULL))
);
CREATE INDEX api_clients_of_tenant ON api_clients (tenant_id, client_id);
CREATE INDEX api_clients_of_organization ON api_clients (organization_id);

-- Identity providers (OpenID Connect). The issuer never changes: a subject means something only together with it.
CREATE TABLE identity_providers (
  provider_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint      NOT NULL REFERENCES tenants,
  name            text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  issuer          text        NOT NULL CHECK (length(issuer) BETWEEN 1 AND 2048),
  openid_client   text        NOT NULL CHECK (length(openid_client) BETWEEN 1 AND 255),
  -- Sealed; null: a public client, with PKCE alone.
  openid_secret   bytea       CHECK (octet_length(openid_secret) BETWEEN 1 AND 8192),
  document        jsonb       NOT NULL,
  state           text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'off')),
  created_at      timestamptz NOT NULL DEFAULT now(),
  version         bigint      NOT NULL DEFAULT 1,
  UNIQUE (tenant_id, issuer, openid_client),
  UNIQUE (tenant_id, provider_id)
);

-- Who somebody at a provider is here. Never found by a mail address alone.
CREATE TABLE provider_accounts (
  provider_id bigint      NOT NULL,
  subject     text        NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
  tenant_id   bigint      NOT NULL,
  user_id     bigint      NOT NULL,
  linked_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (provider_id, subject),
  FOREIGN KEY (tenant_id, provider_id) REFERENCES identity_providers (tenant_id, provider_id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE INDEX provider_accounts_of_user ON provider_accounts (user_id);

-- Sign-ins that are at a provider now; taken away by the answer. Nonce and PKCE verifier follow from the browser's
-- cookie, of which only the hash is here.
CREATE TABLE provider_sign_ins (
  state_sha256   bytea       PRIMARY KEY CHECK (octet_length(state_sha256) = 32),
  browser_sha256 bytea       NOT NULL CHECK (octet_length(browser_sha256) = 32),
  tenant_id      bigint      NOT NULL,
  provider_id    bigint      NOT NULL,
  return_to      text        CHECK (length(return_to) BETWEEN 1 AND 2048),
  expires_at     timestamptz NOT NULL,
  FOREIGN KEY (tenant_id, provider_id) REFERENCES identity_providers (tenant_id, provider_id)
);
CREATE INDEX provider_sign_ins_of_provider ON provider_sign_ins (provider_id);
CREATE INDEX provider_sign_ins_by_end ON provider_sign_ins (expires_at);

-- A sign-in of a user or an operator. A refresh token is a handle, which stays, and a secret, which is exchanged at each
-- use: so one row knows every refresh token that the session has had, and a used one that comes again ends it.
CREATE TABLE sessions (
  session_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint,
  user_id         bigint,
  operator_id     bigint      REFERENCES operators,
  handle_sha256   bytea       NOT NULL UNIQUE CHECK (octet_length(handle_sha256) = 32),
  refresh_sha256  bytea       NOT NULL CHECK (octet_length(refresh_sha256) = 32),
  previous_sha256 bytea       CHECK (octet_length(previous_sha256) = 32),
  refreshed_at    timestamptz NOT NULL DEFAULT now(),
  refresh_until   timestamptz NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  ends_at         timestamptz NOT NULL,
  ended_at        timestamptz,
  -- May only set up a second factor.
  limited         boolean     NOT NULL DEFAULT false,
  provider_id     bigint,
  address         text        CHECK (length(address) BETWEEN 1 AND 64),
  program         text        CHECK (length(program) BETWEEN 1 AND 255),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id),
  FOREIGN KEY (tenant_id, provider_id) REFERENCES identity_providers (tenant_id, provider_id),
  CHECK ((user_id IS NULL) <> (operator_id IS NULL)),
  CHECK ((user_id IS NULL) = (tenant_id IS NULL))
);
CREATE INDEX sessions_of_user ON sessions (user_id, session_id) WHERE user_id IS NOT NULL;
CREATE INDEX sessions_of_operator ON sessions (operator_id, session_id) WHERE operator_id IS NOT NULL;
CREATE INDEX sessions_of_provider ON sessions (provider_id) WHERE provider_id IS NOT NULL;
CREATE INDEX sessions_by_end ON sessions (least(ends_at, refresh_until, ended_at));

-- What requests come with, for minutes.
CREATE TABLE access_tokens (
  token_sha256 bytea       PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
  session_id   bigint      REFERENCES sessions,
  client_id    bigint      REFERENCES api_clients,
  expires_at   timestamptz NOT NULL,
  CHECK ((session_id IS NULL) <> (client_id IS NULL))
);
CREATE INDEX access_tokens_of_session ON access_tokens (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX access_tokens_of_client ON access_tokens (client_id) WHERE client_id IS NOT NULL;
CREATE INDEX access_tokens_by_end ON access_tokens (expires_at);

-- Wrong passwords and codes in a row. The account is a hash, for accounts that do not exist are counted alike. `source`
-- is an address that the account is known to sign in from, or 'elsewhere': all others together.
CREATE TABLE sign_in_failures (
  account_sha256 bytea       NOT NULL CHECK (octet_length(account_sha256) = 32),
  what           text        NOT NULL CHECK (what IN ('password', 'code')),
  source         text        NOT NULL CHECK (length(source) BETWEEN 1 AND 64),
  failures       integer     NOT NULL CHECK (failures > 0),
  last_at        timestamptz NOT NULL DEFAULT now(),
  locked_until   timestamptz,
  PRIMARY KEY (account_sha256, what, source)
);
CREATE INDEX sign_in_failures_by_time ON sign_in_failures (last_at);

CREATE TABLE sign_in_addresses (
  account_sha256 bytea       NOT NULL CHECK (octet_length(account_sha256) = 32),
  address        text        NOT NULL CHECK (length(address) BETWEEN 1 AND 64),
  last_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_sha256, address)
);
CREATE INDEX sign_in_addresses_by_time ON sign_in_addresses (last_at);

-- A user's generator of codes (RFC 6238). In force once a code of it has confirmed it. last_step: of the last code that
-- was taken; none up to it is taken again.
CREATE TABLE second_factors (
  user_id      bigint      PRIMARY KEY,
  tenant_id    bigint      NOT NULL,
  secret       bytea       NOT NULL CHECK (octet_length(secret) BETWEEN 1 AND 8192),
  made_at      timestamptz NOT NULL DEFAULT now(),
  confirmed_at timestamptz,
  last_step    bigint,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE TABLE recovery_codes (
  user_id     bigint      NOT NULL REFERENCES second_factors,
  code_sha256 bytea       NOT NULL CHECK (octet_length(code_sha256) = 32),
  used_at     timestamptz,
  PRIMARY KEY (user_id, code_sha256)
);

-- With it a user sets the first password. At most one at a time; gone when it was used.
CREATE TABLE invitations (
  user_id      bigint      PRIMARY KEY,
  tenant_id    bigint      NOT NULL,
  token_sha256 bytea       NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  made_at      timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE INDEX invitations_by_end ON invitations (expires_at);

-- Who signs in may name their tenant.
CREATE INDEX tenants_by_name ON tenants (lower(name));

-- Given by an identity provider at a sign-in, and taken by it at another; null: by a person.
ALTER TABLE user_roles ADD provider_id bigint REFERENCES identity_providers;
CREATE INDEX user_roles_of_provider ON user_roles (provider_id) WHERE provider_id IS NOT NULL;
