/**
 * What the agent keeps of commands in its folder: which it has begun, and where, so that what a killed one left behind is
 * found; and how they ended, until the server has heard it. A file that is damaged, or of another registration, counts as
 * nothing: the server tells what is still open, and a restore that is done again finds that all is there.
 */
import { type CommandEndRequest, CommandEndRequest as EndSchema } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import { validate } from '../../protocol/wire.ts';
import { homeFile, readTextFile, writePrivateFile } from '../state/home.ts';
import type { Registration } from '../state/registration.ts';

/** As many as a server may have open for a device, and some that it has not heard the end of. */
const keptMax = 2 * limits.deviceCommandsMax;

/** Of a command that was begun: archive paths of the folders of this machine in which files grow. */
type Begun = Map<number, Buffer[]>;

export class KeptCommands {
  readonly #file: string;
  readonly #of: string;
  readonly #begun: Begun = new Map();
  readonly #ends = new Map<number, CommandEndRequest>();
  /** Since the agent runs, and those whose end it had still to tell then. */
  readonly #ended = new Set<number>();

  constructor(home: string, { url, guid, archive }: Registration) {
    this.#file = homeFile(home, 'commands.json');
    this.#of = `${url} ${guid} ${archive}`;
    this.#read();
    for (const id of this.#ends.keys()) this.#ended.add(id);
  }

  get begun(): ReadonlyMap<number, readonly Buffer[]> {
    return this.#begun;
  }

  /** Those that the server has not heard of. */
  get ends(): ReadonlyMap<number, CommandEndRequest> {
    return this.#ends;
  }

  /** One that is told all the same was told while its end was on its way. */
  hasEnded(id: number): boolean {
    return this.#ended.has(id);
  }

  /** Before anything is written to a folder. */
  begin(id: number, folder: Buffer | null): void {
    const folders = this.#begun.get(id) ?? [];
    if (this.#begun.has(id) && (folder === null || folders.some((each) => each.equals(folder)))) return;
    this.#begun.set(id, folder === null ? folders : [...folders, folder]);
    drop(this.#begun);
    this.#write();
  }

  /**
   * It is done, one way or another: nothing of it goes on.
   * @param options.isTidy false: something of it is left in its folders, which are kept
   */
  end(id: number, end: CommandEndRequest | null, { isTidy = true } = {}): void {
    if (isTidy ? this.#begun.delete(id) : !this.#begun.has(id)) {
      if (!isTidy) this.#begun.set(id, []);
    } else if (!end) return;
    if (end) {
      this.#ends.set(id, end);
      this.#ended.add(id);
    }
    for (const kept of [this.#begun, this.#ends, this.#ended]) drop(kept);
    this.#tryToWrite();
  }

  /** The same end in other words. */
  reword(id: number, end: CommandEndRequest): void {
    this.#ends.set(id, end);
    this.#tryToWrite();
  }

  /** The server has heard it, or will not. */
  delivered(id: number): void {
    if (this.#ends.delete(id)) this.#tryToWrite();
  }

  /** On a full disk it is told from memory; lost with the process, the command is told again, and all of it is there. */
  #tryToWrite(): void {
    try {
      this.#write();
    } catch {
      // The next change writes all of it.
    }
  }

  #read(): void {
    const text = readTextFile(this.#file);
    if (text === null) return;
    try {
      const { of, begun, ends } = JSON.parse(text) as {
        of: unknown;
        begun: { id: number; folders: string[] }[];
        ends: { id: number; end: Record<string, unknown> }[];
      };
      if (of !== this.#of) return;
      for (const { id, folders } of begun) this.#begun.set(Number(id), folders.map(bytesOf));
      for (const { id, end } of ends) this.#ends.set(Number(id), endOf(end));
    } catch {
      this.#begun.clear();
      this.#ends.clear();
    }
  }

  #write(): void {
    const document = {
      of: this.#of,
      begun: [...this.#begun].map(([id, folders]) => ({ id, folders: folders.map(textOf) })),
      ends: [...this.#ends].map(([id, end]) => ({
        id,
        end: {
          ...end,
          attempt: textOf(end.attempt),
          problems: end.problems.map((each) => ({ ...each, path: textOf(each.path) })),
        },
      })),
    };
    writePrivateFile(this.#file, `${JSON.stringify(document, null, 2)}\n`);
  }
}

/** The oldest go. */
function drop(map: Map<number, unknown> | Set<number>): void {
  while (map.size > keptMax) map.delete(map.keys().next().value!);
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const bytesOf = (text: string): Buffer => Buffer.from(text, 'base64');

/** @throws Problem when it is not one */
function endOf(document: Record<string, unknown>): CommandEndRequest {
  const problems = (document.problems as { path: string }[]).map((each) => ({ ...each, path: bytesOf(each.path) }));
  return validate(EndSchema, { ...document, attempt: bytesOf(String(document.attempt)), problems });
}
