-- Up Migration
-- The audit log.
CREATE TABLE acts (
  act_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       bigint,
  organization_id bigint,
  at              timestamptz NOT NULL DEFAULT now(),
  party_kind      text NOT NULL,
  party_id        text,
  party_name      text NOT NULL,
  address         text,
  action          text NOT NULL,
  target_kind     text,
  target_id       text,
  target_name     text,
  result          text NOT NULL,
  details         jsonb NOT NULL
);
