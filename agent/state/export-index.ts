/**
 * What lies where in a sealed export, while it is opened. A database without a name: SQLite keeps it in a file of its own
 * below the system's folder for such things (SQLITE_TMPDIR, TMPDIR, /var/tmp), which goes with the process. Some 100 bytes
 * for each block and version.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';

export interface ExportPlace {
  /** Bytes from the beginning of the export. */
  at: number;
  bytes: number;
}

const versionsPage = 1_000;

export class ExportIndex implements Disposable {
  readonly #db = new DatabaseSync('');
  readonly #addVersion: StatementSync;
  readonly #add: Record<'block' | 'list', StatementSync>;
  readonly #find: Record<'block' | 'list', StatementSync>;
  readonly #versions: StatementSync;

  constructor() {
    this.#db.exec(
      `pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -32768; pragma temp_store = file;
       create table versions (number integer primary key, at integer not null, bytes integer not null);
       create table blocks (name blob primary key, at integer not null, bytes integer not null) without rowid;
       create table lists (name blob primary key, at integer not null, bytes integer not null) without rowid;
       begin`,
    );
    const prepare = (sql: string): StatementSync => this.#db.prepare(sql);
    this.#addVersion = prepare('insert into versions (at, bytes) values (?, ?)');
    this.#add = {
      block: prepare('insert into blocks values (?, ?, ?) on conflict do nothing'),
      list: prepare('insert into lists values (?, ?, ?) on conflict do nothing'),
    };
    this.#find = {
      block: prepare('select at, bytes from blocks where name = ?'),
      list: prepare('select at, bytes from lists where name = ?'),
    };
    this.#versions = prepare(
      `select number, at, bytes from versions where number > ? order by number limit ${versionsPage}`,
    );
  }

  addVersion(at: number, bytes: number): void {
    this.#addVersion.run(at, bytes);
  }

  /** Of one that comes again the first place is kept. */
  add(kind: 'block' | 'list', name: Uint8Array, at: number, bytes: number): void {
    this.#add[kind].run(name, at, bytes);
  }

  find(kind: 'block' | 'list', name: Uint8Array): ExportPlace | null {
    return (this.#find[kind].get(name) as ExportPlace | undefined) ?? null;
  }

  /** In the order of the export. */
  *versions(): Generator<ExportPlace> {
    for (let after = 0; ; ) {
      const page = this.#versions.all(after) as unknown as (ExportPlace & { number: number })[];
      yield* page;
      if (page.length < versionsPage) return;
      after = page.at(-1)!.number;
    }
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}
