/**
 * Debian's restic against a server: as a child process with a cache, a certificate and a repository of its own. The repository
 * and its token are made as rows, by the user's name.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256 } from '../../protocol/hashes.ts';
import type { RunningServer } from './server.ts';

export interface ResticRun {
  exitCode: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface RunningRestic {
  readonly done: Promise<ResticRun>;
  /** What it has said so far, of errors. */
  said(): string;
  kill(signal: NodeJS.Signals): void;
}

export interface ResticOptions {
  password?: string;
  token?: string;
  userName?: string;
  /** Another repository's name in the URL. */
  repository?: string;
  environment?: Record<string, string>;
}

export class Restic {
  readonly #server: RunningServer;
  readonly #folder = mkdtempSync(join(tmpdir(), 'holdfast-restic-'));
  readonly #of: { repository: string; userName: string; token: string };
  readonly #running = new Set<ChildProcess>();

  constructor(server: RunningServer, of: { repository: string; userName: string; token: string }) {
    this.#server = server;
    this.#of = of;
    mkdirSync(join(this.#folder, 'cache'));
  }

  url({ token, userName, repository }: ResticOptions = {}): string {
    const { host } = new URL(this.#server.url);
    const user = encodeURIComponent(userName ?? this.#of.userName);
    return `rest:https://${user}:${token ?? this.#of.token}@${host}/restic/${repository ?? this.#of.repository}/`;
  }

  start(args: readonly string[], options: ResticOptions = {}): RunningRestic {
    const certificate = join(this.#server.data, 'certificate.pem');
    const child = spawn('restic', ['--cacert', certificate, ...args], {
      env: {
        PATH: process.env.PATH,
        HOME: this.#folder,
        RESTIC_CACHE_DIR: join(this.#folder, 'cache'),
        RESTIC_PASSWORD: options.password ?? 'of this repository',
        RESTIC_REPOSITORY: this.url(options),
        ...options.environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#running.add(child);
    const stdout: Buffer[] = [];
    let stderr = '';
    child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => (stderr += bytes));
    const done = new Promise<ResticRun>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (exitCode) => {
        this.#running.delete(child);
        resolve({ exitCode, stdout: Buffer.concat(stdout), stderr });
      });
    });
    return { done, said: () => stderr, kill: (signal) => child.kill(signal) };
  }

  run(...args: string[]): Promise<ResticRun> {
    return this.start(args).done;
  }

  /** @throws Error with what it said, when it failed */
  async succeed(...args: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...args);
    if (exitCode !== 0) throw new Error(`restic ${args.join(' ')} ended with ${exitCode}: ${stderr}\n${stdout}`);
    return stdout.toString();
  }

  remove(): void {
    for (const child of this.#running) child.kill('SIGKILL');
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export type ResticMode = 'full' | 'append' | 'read';

/** A new repository of a user of the first tenant. */
export async function addRepository(server: RunningServer, name: string, userName: string): Promise<string> {
  const guid = String(randomBytes(8).readBigUInt64BE() >> 1n);
  await server.query(
    `WITH owner AS (SELECT tenant_id, user_id FROM users WHERE name = $2),
          made AS (INSERT INTO vaults (user_id) SELECT user_id FROM owner ON CONFLICT (user_id) DO NOTHING RETURNING vault_id),
          vault AS (SELECT vault_id FROM made UNION SELECT v.vault_id FROM vaults v JOIN owner USING (user_id)),
          device AS (SELECT nextval(pg_get_serial_sequence('devices', 'device_id')) AS device_id),
          archive AS (INSERT INTO archives (vault_id, device_id, kind) SELECT vault_id, device_id, 'plain' FROM vault, device RETURNING archive_id)
     INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, kind, vault_id, archive_id)
     SELECT device_id, tenant_id, user_id, $3, $1, 'other', 'restic', 'restic', vault_id, archive_id FROM owner, vault, device, archive`,
    [name, userName, guid],
  );
  return guid;
}

export async function addToken(server: RunningServer, guid: string, mode: ResticMode = 'full'): Promise<string> {
  const secret = randomBytes(32);
  await server.query(
    `INSERT INTO restic_tokens (tenant_id, user_id, guid, name, mode, token_sha256, created_by)
     SELECT tenant_id, user_id, guid, 'test', $2, $3, 'test' FROM devices WHERE guid = $1`,
    [guid, mode, sha256(secret)],
  );
  return `hfr_${secret.toString('base64url')}`;
}

/** A user's new repository with a token that may do everything, and a restic that uses it. */
export async function newRestic(server: RunningServer, repository: string, userName: string): Promise<Restic> {
  const guid = await addRepository(server, repository, userName);
  return new Restic(server, { repository, userName, token: await addToken(server, guid) });
}
