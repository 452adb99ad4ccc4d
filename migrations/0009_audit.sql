-- Up Migration
-- The audit log (docs/decisions/audit.md). A row per act, numbered per tenant without gaps, each with the SHA-256 over
-- the hash of the one before it and its own bytes. An INSERT is numbered and chained by a trigger, whoever makes it, so
-- that there is no way around it short of taking the trigger away.

-- The end of each log. tenant_id 0: the server's own, for what is no tenant's.
CREATE TABLE act_heads (
  tenant_id       bigint  PRIMARY KEY CHECK (tenant_id >= 0),
  number          bigint  NOT NULL DEFAULT 0,
  hash            bytea   NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(hash) = 32),
  -- The newest signed head, whole: written here before it is in the bucket, so that two workers never sign two.
  signed_number   bigint  NOT NULL DEFAULT 0,
  signed_document text,
  signed_stored   boolean NOT NULL DEFAULT false,
  -- Acts up to this number have expired, or are about to go.
  expired_to      bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE acts (
  tenant_id       bigint      NOT NULL,
  number          bigint      NOT NULL,
  at              timestamptz NOT NULL DEFAULT now(),
  organization_id bigint,
  party_kind      text        NOT NULL CHECK (length(party_kind) BETWEEN 1 AND 32),
  party_id        text        CHECK (length(party_id) <= 128),
  party_name      text        NOT NULL CHECK (length(party_name) <= 1024),
  address         text        CHECK (length(address) <= 128),
  action          text        COLLATE "C" NOT NULL CHECK (action ~ '^[a-z][a-z0-9_.-]{0,63}$'),
  target_kind     text        CHECK (length(target_kind) BETWEEN 1 AND 32),
  target_id       text        CHECK (length(target_id) <= 1024),
  target_name     text        CHECK (length(target_name) <= 1024),
  result          text        NOT NULL CHECK (result IN ('done', 'refused', 'failed')),
  -- json and not jsonb: it has to come back byte for byte.
  details         json        NOT NULL CHECK (octet_length(details::text) <= 16384),
  hash            bytea       NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (tenant_id, number)
);
CREATE INDEX acts_by_time ON acts (tenant_id, at, number);
CREATE INDEX acts_by_party ON acts (tenant_id, party_kind, party_id, at, number);
CREATE INDEX acts_by_target ON acts (tenant_id, target_kind, target_id, at, number);
CREATE INDEX acts_by_action ON acts (tenant_id, action, at, number);
CREATE INDEX acts_by_address ON acts (tenant_id, address, at, number);
CREATE INDEX acts_by_organization ON acts (tenant_id, organization_id, at, number);
CREATE INDEX acts_not_done ON acts (tenant_id, result, at, number) WHERE result <> 'done';

-- A field of an act's bytes: its length in four bytes, big end first, and its UTF-8; none at all is ff ff ff ff.
CREATE FUNCTION act_field(value text) RETURNS bytea LANGUAGE sql STABLE
  RETURN CASE WHEN value IS NULL THEN '\xffffffff'::bytea
              ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END;

-- What is hashed of an act. server/directory/audit/act-bytes.ts says the same in TypeScript; a test holds them together.
CREATE FUNCTION act_bytes(act acts) RETURNS bytea LANGUAGE sql STABLE
  RETURN act_field('holdfast act 1') || act_field((act).tenant_id::text) || act_field((act).number::text)
      || act_field(((extract(epoch FROM (act).at) * 1000000)::bigint)::text) || act_field((act).organization_id::text)
      || act_field((act).party_kind) || act_field((act).party_id) || act_field((act).party_name)
      || act_field((act).address) || act_field((act).action) || act_field((act).target_kind)
      || act_field((act).target_id) || act_field((act).target_name) || act_field((act).result)
      || act_field((act).details::text);

-- Numbers and chains an act under the lock of its log's head, which is kept until the transaction ends: so numbers have
-- no gaps, whatever is rolled back.
CREATE FUNCTION chain_act() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  head act_heads;
BEGIN
  LOOP
    SELECT * INTO head FROM act_heads WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO act_heads (tenant_id) VALUES (NEW.tenant_id) ON CONFLICT DO NOTHING;
  END LOOP;
  NEW.number := head.number + 1;
  NEW.at := now();
  NEW.hash := sha256(head.hash || act_bytes(NEW));
  UPDATE act_heads SET number = NEW.number, hash = NEW.hash WHERE tenant_id = NEW.tenant_id;
  RETURN NEW;
END $$;
CREATE TRIGGER chain_act BEFORE INSERT ON acts FOR EACH ROW EXECUTE FUNCTION chain_act();

CREATE FUNCTION refuse_changing_acts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: no % of %', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER refuse_update BEFORE UPDATE ON acts FOR EACH STATEMENT EXECUTE FUNCTION refuse_changing_acts();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON acts FOR EACH STATEMENT EXECUTE FUNCTION refuse_changing_acts();
CREATE TRIGGER refuse_delete BEFORE DELETE ON act_heads FOR EACH STATEMENT EXECUTE FUNCTION refuse_changing_acts();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON act_heads FOR EACH STATEMENT EXECUTE FUNCTION refuse_changing_acts();

-- Only what has expired goes, and only a signed head lets a log expire (below).
CREATE FUNCTION refuse_deleting_acts() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM gone LEFT JOIN act_heads h ON h.tenant_id = gone.tenant_id
              WHERE h.tenant_id IS NULL OR gone.number > h.expired_to) THEN
    RAISE EXCEPTION 'the audit log is append-only: no DELETE of acts that have not expired' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER refuse_delete AFTER DELETE ON acts REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_deleting_acts();

CREATE FUNCTION keep_act_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.tenant_id <> OLD.tenant_id OR NEW.number < OLD.number OR (NEW.number = OLD.number AND NEW.hash <> OLD.hash)
     OR NEW.signed_number < OLD.signed_number OR NEW.signed_number > NEW.number
     OR NEW.expired_to < OLD.expired_to OR NEW.expired_to > NEW.signed_number THEN
    RAISE EXCEPTION 'the head of an audit log only goes forward' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER keep_act_head BEFORE UPDATE ON act_heads FOR EACH ROW EXECUTE FUNCTION keep_act_head();

-- What the application does to a log beside adding to it. Where its role does not own the tables it has these, and no
-- rights on the tables but SELECT, and INSERT on acts.

-- Enters the head that is signed next; nothing when another worker was first.
CREATE FUNCTION sign_act_head(of_tenant bigint, to_number bigint, document text, before text) RETURNS boolean LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE act_heads SET signed_number = to_number, signed_document = document, signed_stored = false
   WHERE tenant_id = of_tenant AND signed_document IS NOT DISTINCT FROM before;
  RETURN FOUND;
END $$;

-- The signed head is in the bucket.
CREATE FUNCTION act_head_stored(of_tenant bigint, document text) RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE act_heads SET signed_stored = true WHERE tenant_id = of_tenant AND signed_document = document AND NOT signed_stored;
$$;

-- Lets acts up to a number expire; refused above the signed head.
CREATE FUNCTION let_acts_expire(of_tenant bigint, up_to bigint) RETURNS boolean LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE act_heads SET expired_to = up_to WHERE tenant_id = of_tenant AND expired_to < up_to;
  RETURN FOUND;
END $$;

-- Deletes some of what has expired, from the beginning on. Returns how many.
CREATE FUNCTION delete_expired_acts(of_tenant bigint, at_most bigint) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  deleted bigint;
BEGIN
  DELETE FROM acts a USING act_heads h
   WHERE h.tenant_id = of_tenant AND a.tenant_id = of_tenant AND a.number <= h.expired_to
     AND a.number < (SELECT min(number) FROM acts WHERE tenant_id = of_tenant) + at_most;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

-- Goes on with a higher number, after a loss that somebody answers for. The hash stays: the chain has no gap. Returns
-- the number it had, and keeps the log's lock.
CREATE FUNCTION skip_act_numbers(of_tenant bigint, up_to bigint) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  had bigint;
BEGIN
  INSERT INTO act_heads (tenant_id) VALUES (of_tenant) ON CONFLICT DO NOTHING;
  SELECT number INTO had FROM act_heads WHERE tenant_id = of_tenant FOR UPDATE;
  UPDATE act_heads SET number = greatest(number, up_to) WHERE tenant_id = of_tenant;
  RETURN had;
END $$;

REVOKE ALL ON FUNCTION sign_act_head, act_head_stored, let_acts_expire, delete_expired_acts, skip_act_numbers FROM PUBLIC;

-- Refused acts that repeat themselves: counted here for a minute, and told in one act.
CREATE TABLE act_repeats (
  tenant_id  bigint      NOT NULL,
  action     text        NOT NULL,
  party      text        NOT NULL,
  minute     timestamptz NOT NULL,
  seen       bigint      NOT NULL DEFAULT 1,
  party_kind text        NOT NULL,
  party_id   text,
  party_name text        NOT NULL,
  address    text,
  PRIMARY KEY (tenant_id, action, party, minute)
);
CREATE INDEX act_repeats_by_time ON act_repeats (minute);
