/** For tests: what a backup works on and with, in a scratch folder of its own, against a server in memory. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, connect } from '../client/client.ts';
import { createExcludes } from '../files/excludes.ts';
import { Cache } from '../state/cache.ts';
import type { Registration } from '../state/registration.ts';
import { type MemoryServer, startMemoryServer } from '../testing/memory-server.ts';
import { type BackupOptions, type BackupResult, backup } from './run.ts';

export class TestBackup {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-backup-'));
  /** What is backed up; empty at first. */
  readonly root = join(this.folder, 'root');
  readonly server: MemoryServer;
  readonly registration: Registration;
  client: Client;
  cache: Cache;

  private constructor(server: MemoryServer) {
    mkdirSync(this.root);
    this.server = server;
    this.registration = {
      url: server.url,
      certificateSha256: null,
      userName: 'anna',
      guid: '42',
      deviceName: 'test',
      token: 'token',
      vault: 7,
      archive: 9,
      level: 'standard',
      keyGeneration: 1,
      vaultKey: randomBytes(32),
    };
    this.client = this.connect();
    this.cache = this.openCache();
  }

  static async start(): Promise<TestBackup> {
    return new TestBackup(await startMemoryServer());
  }

  connect(giveUpAfterMs = 20_000): Client {
    const retry = { giveUpAfterMs, firstDelayMs: 5, delayMsMax: 50 };
    return connect({ url: this.server.url, token: 'token', retry });
  }

  openCache(name = 'cache.db'): Cache {
    return new Cache(join(this.folder, 'home', name), 'test');
  }

  run(options: Partial<BackupOptions> = {}): Promise<BackupResult> {
    const { client, cache, registration, root } = this;
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });
    return backup({ client, cache, registration, roots: [root], excludes, oneFileSystem: true, ...options });
  }

  async close(): Promise<void> {
    this.cache.close();
    this.client.destroy();
    await this.server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
