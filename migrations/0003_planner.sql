-- Up Migration
-- What the planner is to believe of vault_id and archive_id, for ever: that one value may be the whole table. It plans
-- once per connection, for no vault in particular; told that vaults are small, or nothing at all, it finds an index
-- that begins with the vault as good as the key, and reads the vault row by row when it has grown (measured: 5.6 s
-- for 8,192 hashes, with the key 0.05 s). So each table is shown such rows once, and these columns are not looked at
-- again. In a migration of its own: only a table from an earlier transaction counts as never vacuumed after TRUNCATE,
-- and is then taken to be ten pages long. docs/decisions/catalog.md; storage/catalog/statements.test.ts.
INSERT INTO vaults (vault_id, user_id) OVERRIDING SYSTEM VALUE VALUES (0, 0);
INSERT INTO vault_keys SELECT 0, n, 'standard', '' FROM generate_series(1, 1000) n;
INSERT INTO archives (vault_id, archive_id, device_id) OVERRIDING SYSTEM VALUE SELECT 0, n, 0 FROM generate_series(1, 1000) n;
INSERT INTO objects (vault_id, object_id, key, state, size_bytes, live_bytes) OVERRIDING SYSTEM VALUE
  SELECT 0, n, n, (ARRAY['writing', 'live', 'dead'])[1 + n % 3], 1, 1 FROM generate_series(1, 1000) n;
INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
  SELECT 0, sha256(n::text::bytea), n, 0, 1, now() FROM generate_series(1, 1000) n;
INSERT INTO files SELECT 0, 0, n, n / 10, n::text::bytea, false, false, n FROM generate_series(1, 1000) n;
INSERT INTO versions SELECT 0, 0, n, n, now() + n * interval '1 s', 'file', false, 0, 0, '', sha256(''), '' FROM generate_series(1, 1000) n;
INSERT INTO commits SELECT 0, 0, substr(sha256(n::text::bytea), 1, 16), 0, '', n, 1, now() FROM generate_series(1, 1000) n;
INSERT INTO runs (vault_id, archive_id, run_id, roots) OVERRIDING SYSTEM VALUE SELECT 0, 0, n, '' FROM generate_series(1, 1000) n;
INSERT INTO run_skipped SELECT 0, 0, n, sha256(''), '', '', '' FROM generate_series(1, 1000) n;
ANALYZE vaults, vault_keys, archives, objects, blocks, files, versions, commits, runs, run_skipped;
TRUNCATE vaults, vault_keys, archives, objects, blocks, files, versions, commits, runs, run_skipped;
ALTER TABLE vault_keys  ALTER vault_id SET STATISTICS 0;
ALTER TABLE archives    ALTER vault_id SET STATISTICS 0;
ALTER TABLE objects     ALTER vault_id SET STATISTICS 0;
ALTER TABLE blocks      ALTER vault_id SET STATISTICS 0;
ALTER TABLE files       ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
ALTER TABLE versions    ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
ALTER TABLE commits     ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
ALTER TABLE runs        ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
ALTER TABLE run_skipped ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
