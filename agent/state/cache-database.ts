/**
 * The agent's cache as a database: opened, owned by one archive, its writes gathered in transactions.
 */
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { cacheSchema, cacheVersion } from './cache-schema.ts';
import { makeHome } from './home.ts';

/** Writes that one transaction gathers before it is committed by itself. */
const transactionWritesMax = 20_000;

export class CacheDatabase {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #writes = 0;

  /**
   * Opens or makes the cache in `file`.
   * @param owner says whose archive it is; rows of another owner are forgotten
   */
  constructor(file: string, owner: string, options: { readOnly?: boolean } = {}) {
    if (!options.readOnly) makeHome(dirname(file));
    this.#db = new DatabaseSync(file, { timeout: 10_000, readOnly: options.readOnly ?? false });
    if (options.readOnly) return;
    // NORMAL with a write-ahead log: a power cut may lose the last transactions, never mix them; the archive's own
    // numbering (knownSeq) then tells that something is missing, and the run reconciles.
    // The log is copied into the database every 32 MiB: paths come in no order, so each time touches most of the index,
    // and the process waits for the disk to flush it.
    this.#db.exec(
      `pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 8000;
       pragma cache_size = -16384; pragma temp_store = memory`,
    );
    const mine = `${cacheVersion}:${owner}`;
    this.#db.exec(cacheSchema);
    if (this.meta('owner') === mine) return;
    if (this.meta('owner') !== undefined) {
      for (const table of ['meta', 'files', 'pending_commit', 'pending_files', 'skipped', 'roots', 'runs'])
        this.#db.exec(`drop table ${table}`);
      this.#db.exec(cacheSchema);
    }
    this.setMeta('owner', mine);
    this.flush();
  }

  close(): void {
    this.flush();
    this.#db.close();
  }

  /** Commits what was written since the last time. */
  flush(): void {
    if (this.#writes > 0) this.#db.exec('commit');
    this.#writes = 0;
  }

  protected statement(sql: string, bigInts = false): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#db.prepare(sql);
      statement.setReadBigInts(bigInts);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** A statement that writes, inside the transaction that gathers writes. */
  protected write(sql: string): StatementSync {
    if (this.#writes >= transactionWritesMax) this.flush();
    if (this.#writes === 0) this.#db.exec('begin immediate');
    this.#writes++;
    return this.statement(sql);
  }

  protected meta(key: string): unknown {
    return this.statement('select value from meta where key = ?').get(key)?.value;
  }

  protected setMeta(key: string, value: string | number | Uint8Array): void {
    this.write('insert or replace into meta(key, value) values (?, ?)').run(key, value);
  }
}

/** The open range of paths below one: '/' is 0x2f, and nothing sorts between '/' and '0'. */
export function below(path: Buffer): { from: Buffer; to: Buffer } {
  if (path.byteLength <= 1) return { from: Buffer.from('/'), to: Buffer.from('0') };
  return { from: Buffer.concat([path, Buffer.from('/')]), to: Buffer.concat([path, Buffer.from('0')]) };
}

/** Inode numbers have 64 bits, SQLite's integers 63 and a sign. */
export function signed64(value: bigint): bigint {
  return BigInt.asIntN(64, value);
}

export function bufferOf(value: unknown): Buffer {
  const bytes = value as Uint8Array | undefined;
  return bytes ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) : Buffer.alloc(0);
}
