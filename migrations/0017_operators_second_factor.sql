-- Up Migration
-- The second factor of those who run the server, as users have it (0010_sign_in.sql): a generator of codes, in force once
-- a code of it has confirmed it, and recovery codes.
CREATE TABLE operator_second_factors (
  operator_id  bigint      PRIMARY KEY REFERENCES operators,
  secret       bytea       NOT NULL CHECK (octet_length(secret) BETWEEN 1 AND 8192),
  made_at      timestamptz NOT NULL DEFAULT now(),
  confirmed_at timestamptz,
  last_step    bigint
);
CREATE TABLE operator_recovery_codes (
  operator_id bigint      NOT NULL REFERENCES operator_second_factors,
  code_sha256 bytea       NOT NULL CHECK (octet_length(code_sha256) = 32),
  used_at     timestamptz,
  PRIMARY KEY (operator_id, code_sha256)
);

-- What is refused too often is counted by its reason too, so that a flood of one kind does not hide the first of another.
-- Rows are of the last minutes only: none is worth keeping over the change.
DELETE FROM act_repeats;
ALTER TABLE act_repeats ADD why text NOT NULL DEFAULT '';
ALTER TABLE act_repeats DROP CONSTRAINT act_repeats_pkey;
ALTER TABLE act_repeats ADD PRIMARY KEY (tenant_id, action, why, party, minute);

-- Signed in at the page for operators: a cookie has its access token, whose time goes on while it is used.
ALTER TABLE sessions ADD browser boolean NOT NULL DEFAULT false;
