-- Up Migration
-- A tenant that leaves: from `delete_after` on its data may be deleted, and until then it can be called back.
ALTER TABLE tenants
  ADD delete_after timestamptz,
  ADD CHECK ((state = 'offboarding') = (delete_after IS NOT NULL));

-- What a deactivated organization was before, and is again when it is reactivated.
ALTER TABLE organizations ADD state_before text CHECK (state_before IN ('active', 'blocked'));
