-- Up Migration
-- What quotas do not charge of plain archives (docs/decisions/restic.md): blocks that nothing names but files that are hidden.

-- A block is noted when a file is hidden and nothing else of the vault names it, under the block's row lock; whatever
-- names it again takes the note away, in the transaction that counts the name. So it is here only while hidden files alone
-- name it, or nothing does and it waits to be reclaimed. `hidden_bytes` of a vault is the sum of its rows here.
CREATE TABLE hidden_blocks (
  vault_id    bigint NOT NULL,
  hash        bytea  NOT NULL,
  byte_length bigint NOT NULL,
  PRIMARY KEY (vault_id, hash)
);
ALTER TABLE usage_deltas ADD hidden_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE vault_usage ADD hidden_bytes bigint NOT NULL DEFAULT 0;

-- Retention has taken content of the folder that was there before this moment; null: never. What was there at a later one can
-- all be had back.
ALTER TABLE plain_figures ADD gone_before timestamptz;
