-- Up Migration
-- Registering a device without a password, and once however often it is asked for (docs/decisions/sign-in.md).

-- Good for one device of its user, instead of a sign-in. `made`: by a person, who hands it over. `listing`: answered to
-- whoever looked at the devices there are, for the code of the second factor that looking has used up. One that a user has
-- made for themself is good as long as the session it was made in; null: an administrator made it, or looking did. A used one
-- stays for a while, so that the log can say why it was refused; a revoked one goes.
CREATE TABLE registration_codes (
  code_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id   bigint      NOT NULL,
  user_id     bigint      NOT NULL,
  code_sha256 bytea       NOT NULL UNIQUE CHECK (octet_length(code_sha256) = 32),
  kind        text        NOT NULL CHECK (kind IN ('made', 'listing')),
  session_id  bigint      REFERENCES sessions,
  made_at     timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  used_at     timestamptz,
  FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id)
);
CREATE INDEX registration_codes_of_user ON registration_codes (user_id, code_id);
CREATE INDEX registration_codes_by_end ON registration_codes (expires_at);
CREATE INDEX registration_codes_of_session ON registration_codes (session_id) WHERE session_id IS NOT NULL;

-- The code a device was registered with, hashed together with its token: whoever has both may ask for the answer again.
ALTER TABLE devices ADD registered_with bytea CHECK (octet_length(registered_with) = 32);
