-- Up Migration
-- What 0003_planner tells the planner of the first tables, of those that 0004 made: one vault may be the whole table.
INSERT INTO freed SELECT 0, sha256(n::text::bytea), now() + n * interval '1 s' FROM generate_series(1, 1000) n;
INSERT INTO freed_lists SELECT 0, sha256(n::text::bytea), now() + n * interval '1 s' FROM generate_series(1, 1000) n;
INSERT INTO lists (vault_id, hash, claimed_until, blocks) SELECT 0, sha256(n::text::bytea), now(), sha256(n::text::bytea) FROM generate_series(1, 1000) n;
INSERT INTO restores SELECT 0, n, n, now() FROM generate_series(1, 1000) n;
INSERT INTO usage_deltas (vault_id) SELECT 0 FROM generate_series(1, 1000) n;
INSERT INTO damage (vault_id, hash) SELECT 0, sha256(n::text::bytea) FROM generate_series(1, 1000) n;
INSERT INTO damage_versions SELECT 0, sha256(n::text::bytea), 0, n, n FROM generate_series(1, 1000) n;
INSERT INTO alerts (vault_id, archive_id, kind) SELECT 0, n, 'x' FROM generate_series(1, 1000) n;
ANALYZE freed, freed_lists, lists, restores, usage_deltas, damage, damage_versions, alerts;
TRUNCATE freed, freed_lists, lists, restores, usage_deltas, damage, damage_versions, alerts;
ALTER TABLE freed           ALTER vault_id SET STATISTICS 0;
ALTER TABLE freed_lists     ALTER vault_id SET STATISTICS 0;
ALTER TABLE lists           ALTER vault_id SET STATISTICS 0;
ALTER TABLE holds           ALTER vault_id SET STATISTICS 0;
ALTER TABLE restores        ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
ALTER TABLE usage_deltas    ALTER vault_id SET STATISTICS 0;
ALTER TABLE damage          ALTER vault_id SET STATISTICS 0;
ALTER TABLE damage_versions ALTER vault_id SET STATISTICS 0;
ALTER TABLE alerts          ALTER vault_id SET STATISTICS 0, ALTER archive_id SET STATISTICS 0;
