/**
 * `seed`: fills a catalog with made-up history, and the object store with bytes for it where they are wanted, for load
 * tests (storage/catalog/seeding/seeding.ts says what comes out). Never for a catalog that holds backups: the versions it makes
 * cannot be restored, because no key opens their blocks.
 */
import { createCipheriv } from 'node:crypto';
import { parseArgs } from 'node:util';
import { joinHashes, sha256 } from '../../protocol/hashes.ts';
import { onlyPolicy, planDigest } from '../../storage/archive/retention/policies.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { encodeFooter } from '../../storage/archive/writing/object-footer.ts';
import { objectKey } from '../../storage/archive/writing/upload.ts';
import { databaseDefaults, openDatabase } from '../../storage/catalog/database.ts';
import { checkCatalog } from '../../storage/catalog/migrate.ts';
import {
  CatalogInUse,
  planSeed,
  type SeedOptions,
  type SeedShape,
  seedCatalog,
} from '../../storage/catalog/seeding/seeding.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { type Config, loadConfig } from '../config.ts';
import { objectStoreSettings } from '../storage-settings.ts';

export const seedUsage = `usage: node server/main.ts seed [options]   (with HOLDFAST_DATABASE_URL, and the object store's settings)
  --blocks N          block rows, in all vaults (default 100000)
  --versions N        versions, ten of each file (default 20000)
  --vaults N          users, with one archive each (default 1)
  --block-bytes N     bytes of a block (default 65536)
  --objects-bytes N   bytes of blocks in an object (default 16777216)
  --expiring SHARE    share of the files of whose ten versions five are due to expire (0 to 1, default 0)
  --freed SHARE       share of the blocks that reclaim may take (0 to 1, default 0)
  --sparse N          objects more in each vault, of which a quarter is in use (default 0)
  --with-objects      store objects with real bytes; otherwise there are only rows
  --seed TEXT         another one gives other blocks (default 1)
  --force             also when the catalog is not empty
  --json              one JSON object instead of words`;

export interface SeedRequest {
  shape: SeedShape;
  withObjects: boolean;
  force: boolean;
  json: boolean;
}

/** @throws Error in words for the operator, when the words of the command line are not understood */
export function readSeedArguments(args: readonly string[]): SeedRequest {
  const text = { type: 'string' } as const;
  const yes = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      blocks: text,
      versions: text,
      vaults: text,
      'block-bytes': text,
      'objects-bytes': text,
      expiring: text,
      freed: text,
      sparse: text,
      seed: text,
      'with-objects': yes,
      force: yes,
      json: yes,
    },
  });
  const count = (name: keyof typeof values, fallback: number, bounds: { min: number; max: number }): number => {
    const value = Number(values[name] ?? fallback);
    if (Number.isInteger(value) && value >= bounds.min && value <= bounds.max) return value;
    throw new Error(`--${name} is a whole number from ${bounds.min} to ${bounds.max}`);
  };
  const share = (name: 'expiring' | 'freed'): number => {
    const value = Number(values[name] ?? 0);
    if (value >= 0 && value <= 1) return value;
    throw new Error(`--${name} is a share from 0 to 1`);
  };
  const shape: SeedShape = {
    blocks: count('blocks', 100_000, { min: 1, max: 1_000_000_000 }),
    versions: count('versions', 20_000, { min: 10, max: 1_000_000_000 }),
    vaults: count('vaults', 1, { min: 1, max: 100_000 }),
    blockBytes: count('block-bytes', 65_536, { min: 1, max: 32 * 2 ** 20 }),
    objectBytes: count('objects-bytes', 16 * 2 ** 20, { min: 4, max: 1024 * 2 ** 20 }),
    expiringShare: share('expiring'),
    freedShare: share('freed'),
    sparseObjects: count('sparse', 0, { min: 0, max: 1_000_000 }),
    seed: values.seed ?? '1',
  };
  planSeed(shape);
  return { shape, withObjects: values['with-objects'], force: values.force, json: values.json };
}

/** @returns the process's exit code: 1 when the catalog is in use and --force was not said */
export async function seed(config: Config, request: SeedRequest, say: (line: string) => void): Promise<number> {
  const connectionString = config.databaseUrl!; // the configuration asks for it
  const catalogId = await readCatalogId(connectionString);
  const objects = request.withObjects
    ? await openObjectStore(objectStoreSettings(config), { catalogId, create: true })
    : null;
  const meter = openMeter(request.json);
  const startedAt = performance.now();
  try {
    const seeded = await seedCatalog(connectionString, {
      shape: request.shape,
      force: request.force,
      retentionApplied: planDigest(onlyPolicy(defaultRetention), []),
      onProgress: meter.show,
      ...(objects && { storeObject: objectMaker(objects, catalogId, request.shape) }),
    });
    meter.end();
    const seconds = (performance.now() - startedAt) / 1000;
    if (request.json) say(JSON.stringify({ ...seeded, seconds }));
    else
      say(
        `${seeded.versions} versions of ${seeded.files} files in ${seeded.vaults} vaults (${seeded.expiring} of them due to expire), ` +
          `${seeded.blocks} blocks (${seeded.freed} to reclaim) in ${seeded.objects} objects (${seeded.sparseObjects} sparse), in ${Math.round(seconds)} s`,
      );
    return 0;
  } catch (error) {
    meter.end();
    if (!(error instanceof CatalogInUse)) throw error;
    say(
      `${error.message}: say --force to add to it. What seed makes cannot be told from backups, nor taken out again.`,
    );
    return 1;
  } finally {
    await objects?.close();
  }
}

async function readCatalogId(connectionString: string): Promise<string> {
  const database = openDatabase({ ...databaseDefaults, connectionString, poolMax: 2 });
  try {
    return (await checkCatalog(database)).catalogId;
  } finally {
    await database.close();
  }
}

/** Objects of bytes that nothing compresses and that come again for the same seed; only the keys are new each time. */
export function objectMaker(
  store: Pick<ObjectStore, 'put'>,
  catalogId: string,
  { blockBytes, seed }: Pick<SeedShape, 'blockBytes' | 'seed'>,
): NonNullable<SeedOptions['storeObject']> {
  return async ({ vault, index, blocks }) => {
    const key = sha256(Buffer.from(`${seed} ${vault} ${index}`));
    const bytes = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(blocks * blockBytes));
    const each = Array.from({ length: blocks }, (_, i) => bytes.subarray(i * blockBytes, (i + 1) * blockBytes));
    const hashes = joinHashes(each.map(sha256));
    const footer = encodeFooter(hashes, new Array<number>(blocks).fill(blockBytes));
    const place = objectKey(catalogId, vault, footer);
    await store.put(place, { length: bytes.byteLength + footer.byteLength, chunks: [bytes, footer] });
    return { key: place, hashes };
  };
}

const barCells = 30;
const jsonEveryMs = 1_000;

/** A bar on a terminal, a JSON object a second for scripts, nothing otherwise. */
function openMeter(json: boolean): { show(done: number, doing: string): void; end(): void } {
  const { stderr } = process;
  const onTerminal = stderr.isTTY && !json;
  let last = Number.NEGATIVE_INFINITY;
  return {
    show(done, doing) {
      if (onTerminal) {
        const cells = Math.round(done * barCells);
        const bar = '█'.repeat(cells) + '░'.repeat(barCells - cells);
        stderr.write(`\r\x1b[2K${bar} ${Math.floor(done * 100)} %  ${doing.slice(0, 40)}`);
      } else if (json && performance.now() - last >= jsonEveryMs) {
        last = performance.now();
        stderr.write(`${JSON.stringify({ progress: done, doing })}\n`);
      }
    },
    end: () => void (onTerminal && stderr.write('\r\x1b[2K')),
  };
}

/** The command with the words of its command line. @returns the process's exit code: 2 when they are not understood */
export async function seedCommand(args: readonly string[], say: (line: string) => void): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    say(seedUsage);
    return 0;
  }
  let request: SeedRequest;
  try {
    request = readSeedArguments(args);
  } catch (error) {
    say(`${(error as Error).message}\n\n${seedUsage}`);
    return 2;
  }
  const needs = request.withObjects ? (['database', 'objects'] as const) : (['database'] as const);
  return seed(loadConfig({ embedded: false, needs }), request, say);
}

/** Also a program of its own: `node server/commands/seed.ts OPTIONS`. */
if (import.meta.main) {
  try {
    process.exitCode = await seedCommand(process.argv.slice(2), (line) => console.log(line));
  } catch (error) {
    console.error(`seed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
