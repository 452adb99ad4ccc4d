/** `keys`: which server keys have sealed how many records, a new server key, and everything sealed with it. */
import { hostname, userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import type { Database } from '../../storage/catalog/database.ts';
import { type Config, loadConfig } from '../config.ts';
import type { ActingParty } from '../directory/audit/act.ts';
import { record } from '../directory/audit/record.ts';
import { newServerKey, putFirstKey } from '../directory/keys/key-file.ts';
import type { KeyService } from '../directory/keys/key-service.ts';
import { nameOfServerKey } from '../directory/keys/local-keys.ts';
import { openKeyService } from '../directory/keys/open-key-service.ts';
import { countSealedRecords, type KeyCount, type ResealProgress, resealRecords } from '../directory/keys/reseal.ts';
import { sealedKinds } from '../directory/keys/sealed/kinds.ts';
import { withCatalog } from './open-catalog.ts';
import { type OperatorCommand, type Say, UsageError } from './operator-command.ts';
import { counted, table } from './text.ts';
import { abortOnInterrupt } from './with-storage.ts';

const usage = `The keys that seal vault keys of level "standard", second factors of users and of operators, and the
secrets of identity providers: in the key file, or in AWS KMS.

usage: node server/main.ts keys list [--json]
       node server/main.ts keys rotate [--json]
       node server/main.ts keys reseal [--json]

  list      every key, whether it seals or only opens, and how many records it has sealed
  rotate    put a new key first in the key file: it seals from now on, and every key there still opens
  reseal    seal anew what another key has sealed than the one that seals now. Beside running servers; interrupted, it
            goes on where it was when it is run again
  --json    JSON, a line for each key or each step

To take an old key out of use: rotate (or, for AWS KMS, put the new one first in HOLDFAST_KMS_KEY_ID), an hour later
reseal, and once "list" says 0 for the old one, remove its line from the key file. Not before no backup of the database
from before the resealing will be put back: what is sealed in it needs the old key. docs/decisions/keys.md says more.

"rotate" changes this machine's key file. Where servers have a file each, or one that cannot be written (a secret of
Kubernetes), first add the new key as the last line of every one, and when all have it make it the first.

Exit codes: 0 done, 1 a key is missing or a record cannot be opened, 2 wrong usage.`;

/** A line about how far it is for so many records. */
const progressEveryRecords = 1_000;

interface Asked {
  database: Database;
  config: Config;
  json: boolean;
}

export const keys: OperatorCommand = {
  usage,
  async run(args, say) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { json: { type: 'boolean', default: false } },
    });
    const [what, ...more] = positionals;
    const work = what !== undefined && Object.hasOwn(works, what) ? works[what as keyof typeof works] : null;
    if (!work || more.length > 0) throw new UsageError('Say "list", "rotate" or "reseal".');
    const config = loadConfig({ embedded: false, needs: [] });
    return withCatalog(({ database }) => work({ database, config, json: values.json }, say));
  },
};

const works = { list, rotate, reseal };

const open = (config: Config): KeyService => openKeyService(config, { createFile: false });

const party = (): ActingParty => ({ kind: 'server', id: null, name: `${userInfo().username} on ${hostname()}` });

async function list({ database, config, json }: Asked, say: Say): Promise<number> {
  const counts = await countSealedRecords({ database, keys: open(config) });
  if (json) for (const count of counts) say(JSON.stringify(count));
  else for (const line of inWords(counts)) say(line);
  return counts.some(({ use }) => use === 'missing') ? 1 : 0;
}

function inWords(counts: readonly KeyCount[]): string[] {
  const rows = counts.map(({ name, use, of }) => [
    name ?? '(damaged records)',
    use,
    ...sealedKinds.map((kind) => String(of[kind.name])),
  ]);
  const missing = counts.filter(({ use }) => use === 'missing').reduce((sum, { records }) => sum + records, 0);
  return [
    ...table(['KEY', 'USE', ...sealedKinds.map(({ label }) => `>${label.toUpperCase()}`)], rows),
    ...(missing === 0 ? [] : [`${counted(missing, 'record')} cannot be opened: put the missing keys back.`]),
  ];
}

async function rotate({ database, config, json }: Asked, say: Say): Promise<number> {
  if (config.keyService === 'kms')
    throw new Error('AWS KMS seals: put another key first in HOLDFAST_KMS_KEY_ID instead, or let KMS rotate its own');
  const key = newServerKey();
  const name = nameOfServerKey(key);
  const by = { tenant: null, party: party(), address: null };
  // The act and the file together: an act whose file was not written is taken back. The other way round, a key that
  // nobody was told of is in the file, and does no harm.
  await database.transaction(async (tx) => {
    const details = { key: name, file: config.keyFile };
    await record(tx, by, { action: 'key.rotate', target: null, organization: null, result: 'done', details });
    putFirstKey(config.keyFile, key);
  });
  if (json) say(JSON.stringify({ rotated: { key: name, file: config.keyFile } }));
  else {
    say(`${name} seals from now on. Keep a copy of ${config.keyFile}: the one you have lacks the new key.`);
    say('In an hour, run "keys reseal".');
  }
  return 0;
}

async function reseal({ database, config, json }: Asked, say: Say): Promise<number> {
  const inJson = (step: 'progress' | 'done', { looked, resealed, failed }: ResealProgress): string =>
    JSON.stringify({ [step]: { looked, resealed, failed: Object.fromEntries(failed) } });
  let told = 0;
  const onProgress = (progress: ResealProgress): void => {
    const { looked, resealed } = progress;
    if (looked - told < progressEveryRecords) return;
    told = looked;
    say(json ? inJson('progress', progress) : `${looked} looked at, ${resealed} sealed anew`);
  };
  const parts = { database, keys: open(config) };
  const done = await resealRecords(parts, { party: party() }, { signal: abortOnInterrupt(), onProgress });
  if (json) say(inJson('done', done));
  else {
    say(`${counted(done.resealed, 'record')} sealed anew, of ${done.looked}.`);
    for (const [name, { records, why }] of done.failed)
      say(`${counted(records, 'record')} of ${name} left as they were: ${why}`);
  }
  return done.failed.size === 0 ? 0 : 1;
}
