-- Up Migration
-- A vault key as the server had it when its user raised the level while a hold was on the vault: no key that opens held
-- data is destroyed or taken from legal. Only legal opens it (server/directory/keys/held-keys.ts); it goes when no hold is
-- on the vault any more. To everybody else it is not there.
CREATE TABLE held_vault_keys (
  vault_id   bigint NOT NULL REFERENCES vaults,
  generation integer NOT NULL CHECK (generation >= 1),
  record     bytea NOT NULL,                         -- sealed by the key service, as in vault_keys
  held_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vault_id, generation)
);
ALTER TABLE held_vault_keys ALTER vault_id SET STATISTICS 0;
