/**
 * The tables of the agent's cache (SQLite). It holds nothing that the archive and the disk do not: without it the next
 * run reads every file again, and sends what the server does not have. A cache of another version is made anew.
 */
export const cacheVersion = 2;

const fileColumns = `
    kind text not null,
    size integer not null,
    mtime_ms integer not null,
    mtime_ns integer not null,
    ctime_ns integer not null,
    inode integer not null,
    trusted integer not null,            -- 0: size and times prove nothing, read the file (see racy files in compare.ts)
    attributes_digest blob not null,
    stored_at integer not null,          -- ms, this machine's clock; 0: known from the archive only`;

// What names the content: blocks, or of a large file lists; the other is empty.
const contentColumns = `
    blocks blob not null,
    lists blob not null`;

export const cacheSchema = `
  create table if not exists meta(key text primary key, value) without rowid;
  -- A row per path as the archive has it. 'generation': the last run that met it on this disk; 0: none did yet.
  -- 'mark' belongs to reconciling. 'blocks' and 'lists' come last, so that reading the rest never touches their pages.
  create table if not exists files(
    id integer primary key,
    path blob not null unique,
    generation integer not null,
    mark integer not null default 0,
    seq integer not null,
    ${fileColumns}
    ${contentColumns});
  -- The commit that was sent and not yet answered: its very bytes, and what the answer will make true.
  create table if not exists pending_commit(commit_id blob not null, body blob not null);
  create table if not exists pending_files(
    place integer primary key,           -- in the commit, from 0: its seq is the answer's firstSeq + place
    path blob not null,
    deleted integer not null,
    generation integer not null,
    ${fileColumns}
    ${contentColumns});
  create table if not exists skipped(
    path blob primary key, reason text not null, detail text not null, subtree integer not null, generation integer not null) without rowid;
  create table if not exists roots(path blob primary key, device integer not null, inode integer not null, birthtime_ns integer not null) without rowid;
  create table if not exists runs(
    generation integer primary key, started_at integer not null, ended_at integer, outcome text, reason text not null default '',
    roots text not null, counts text not null default '{}');
`;
