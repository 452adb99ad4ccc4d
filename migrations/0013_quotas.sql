-- Up Migration
-- What quotas and licences are counted from (docs/decisions/quotas.md).

-- Bytes in flight: what an upload may add to the stored bytes of its vault, from its object's row to its blocks' rows. In
-- the transaction that makes the object live, or ends its lease, it turns 0. Of what compact writes it is 0 always.
ALTER TABLE objects
  ADD charged_bytes bigint NOT NULL DEFAULT 0 CHECK (charged_bytes >= 0),
  ADD CONSTRAINT objects_charged CHECK (charged_bytes = 0 OR state = 'writing');
CREATE INDEX objects_in_flight ON objects (vault_id, charged_bytes) WHERE charged_bytes > 0;

-- An organization that has a quota of bytes. `bytes` is never less than what is stored and in flight below it: uploads
-- add to it under the row's lock, nothing takes away from it, and where it would refuse it is counted anew. A count
-- is not yet relied on that begins less than two minutes after the tree or the quota has changed: an upload that was
-- let in by how they were before may not have ended its transaction then. Written under the row's lock, so by the clock and
-- not by the transaction's time: a count that is later than the change has seen it.
CREATE TABLE organization_meters (
  organization_id bigint PRIMARY KEY,
  bytes           bigint      NOT NULL DEFAULT 0 CHECK (bytes >= 0),
  counted_at      timestamptz NOT NULL DEFAULT '-infinity',
  count_ms        integer     NOT NULL DEFAULT 0,
  changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
INSERT INTO organization_meters (organization_id) SELECT organization_id FROM organization_settings WHERE name = 'quotas.bytes';

-- From the top down, like an upload that locks several: neither waits for the other in a circle.
CREATE FUNCTION note_meters_changed(path bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  organization bigint;
BEGIN
  FOREACH organization IN ARRAY path LOOP
    INSERT INTO organization_meters (organization_id) VALUES (organization)
    ON CONFLICT (organization_id) DO UPDATE SET changed_at = clock_timestamp();
  END LOOP;
END $$;

-- Bytes come with whoever brings them: only the new place has to be counted. The old one has too high a figure until then.
CREATE FUNCTION note_user_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_meters_changed((SELECT path FROM organizations WHERE organization_id = NEW.organization_id));
  RETURN NULL;
END $$;
CREATE TRIGGER note_user_moved AFTER UPDATE OF organization_id ON users FOR EACH ROW
  WHEN (OLD.organization_id <> NEW.organization_id) EXECUTE FUNCTION note_user_moved();

-- A move changes the paths of a whole subtree in one statement, so each meter above is touched once, from the top down.
-- Any other change of an organization is one row, and notes a little more than it must: the two versions of the rows are
-- not compared, for joining them has no index.
CREATE FUNCTION note_organizations_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO organization_meters (organization_id)
  SELECT above.id FROM (
    SELECT u.id, min(u.depth) AS depth FROM changed CROSS JOIN LATERAL unnest(changed.path) WITH ORDINALITY AS u (id, depth)
     GROUP BY u.id) above
   ORDER BY above.depth, above.id
  ON CONFLICT (organization_id) DO UPDATE SET changed_at = clock_timestamp();
  RETURN NULL;
END $$;
CREATE TRIGGER note_organizations_moved AFTER UPDATE ON organizations REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
  EXECUTE FUNCTION note_organizations_moved();

-- Uploads pass by the meter of an organization without a quota.
CREATE FUNCTION note_quota_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_meters_changed(ARRAY[coalesce(NEW.organization_id, OLD.organization_id)]);
  RETURN NULL;
END $$;
CREATE TRIGGER note_quota_made AFTER INSERT ON organization_settings FOR EACH ROW
  WHEN (NEW.name = 'quotas.bytes') EXECUTE FUNCTION note_quota_changed();
CREATE TRIGGER note_quota_changed AFTER UPDATE OF value ON organization_settings FOR EACH ROW
  WHEN (NEW.name = 'quotas.bytes' AND OLD.value <> NEW.value) EXECUTE FUNCTION note_quota_changed();
CREATE TRIGGER note_quota_gone AFTER DELETE ON organization_settings FOR EACH ROW
  WHEN (OLD.name = 'quotas.bytes') EXECUTE FUNCTION note_quota_changed();

-- Since when a device takes part in its user's licences. Kept here, for the commits themselves are trimmed.
ALTER TABLE archives ADD first_committed_at timestamptz;
UPDATE archives a SET first_committed_at = coalesce(
    (SELECT v.committed_at FROM versions v WHERE v.vault_id = a.vault_id AND v.archive_id = a.archive_id ORDER BY v.committed_at LIMIT 1),
    a.created_at)
 WHERE a.last_committed_at IS NOT NULL;
CREATE FUNCTION note_first_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.first_committed_at := NEW.last_committed_at;
  RETURN NEW;
END $$;
CREATE TRIGGER note_first_commit BEFORE UPDATE OF last_committed_at ON archives FOR EACH ROW
  WHEN (OLD.first_committed_at IS NULL AND NEW.last_committed_at IS NOT NULL) EXECUTE FUNCTION note_first_commit();

-- When users and devices began and ceased to count for licences: a licence is taken for a year, so how things are now
-- does not tell when it renews. guid: null about the user. A device without a row counts from its first backup.
CREATE TABLE licence_history (
  history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id  bigint      NOT NULL,
  user_id    bigint      NOT NULL,
  guid       bigint,
  counts     boolean     NOT NULL,
  at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX licence_history_of_user ON licence_history (user_id, history_id);

-- A user counts unless they, or an organization above them, are deactivated.
CREATE FUNCTION note_users_counting(users_changed bigint[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO licence_history (tenant_id, user_id, counts)
  SELECT u.tenant_id, u.user_id, t.counts
    FROM unnest(users_changed) AS changed (user_id)
    JOIN users u ON u.user_id = changed.user_id
    JOIN organizations o ON o.organization_id = u.organization_id
    CROSS JOIN LATERAL (
      SELECT u.state <> 'deactivated' AND NOT EXISTS (
        SELECT 1 FROM organizations above WHERE above.organization_id = ANY (o.path) AND above.state = 'deactivated') AS counts) t
   WHERE t.counts <> coalesce(
      (SELECT h.counts FROM licence_history h WHERE h.user_id = u.user_id AND h.guid IS NULL ORDER BY h.history_id DESC LIMIT 1), false)
$$;
CREATE FUNCTION note_user_counting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_users_counting(ARRAY[NEW.user_id]);
  RETURN NULL;
END $$;
CREATE TRIGGER note_user_counting AFTER INSERT OR UPDATE OF state, organization_id ON users FOR EACH ROW
  EXECUTE FUNCTION note_user_counting();

CREATE FUNCTION note_organization_counting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_users_counting(ARRAY(
    SELECT u.user_id FROM organizations o JOIN users u ON u.organization_id = o.organization_id
     WHERE o.path @> ARRAY[NEW.organization_id] ORDER BY u.user_id));
  RETURN NULL;
END $$;
CREATE TRIGGER note_organization_counting AFTER UPDATE OF state ON organizations FOR EACH ROW
  WHEN ((OLD.state = 'deactivated') <> (NEW.state = 'deactivated')) EXECUTE FUNCTION note_organization_counting();

CREATE FUNCTION note_device_counting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO licence_history (tenant_id, user_id, guid, counts)
  VALUES (NEW.tenant_id, NEW.user_id, NEW.guid, NEW.state <> 'deactivated');
  RETURN NULL;
END $$;
CREATE TRIGGER note_device_counting AFTER UPDATE OF state ON devices FOR EACH ROW
  WHEN ((OLD.state = 'deactivated') <> (NEW.state = 'deactivated')) EXECUTE FUNCTION note_device_counting();

-- A catalog that is older than this: when somebody was deactivated is not known, so it is now.
INSERT INTO licence_history (tenant_id, user_id, counts, at)
SELECT tenant_id, user_id, true, created_at FROM users ORDER BY user_id;
SELECT note_users_counting(ARRAY(SELECT user_id FROM users ORDER BY user_id));
INSERT INTO licence_history (tenant_id, user_id, guid, counts)
SELECT tenant_id, user_id, guid, false FROM devices WHERE state = 'deactivated' ORDER BY device_id;
