-- Up Migration
-- Blocks that were uploaded together lie together and are counted down together, several to a page: only with room for
-- all of them do their updates stay HOT, which leaves the index on hashes alone. At 85 a third of them did.
ALTER TABLE blocks SET (fillfactor = 70);
