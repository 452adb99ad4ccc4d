/**
 * Agents: each device backs up made-up files over and over, and reads back what the vault holds. What an agent was told
 * is written into the model the moment it is told; what it does next follows the protocol (docs/protocol.md), with
 * requests that are lost, repeated, given up, or half done.
 */
import { bitAt, hashAt, hashCount, joinHashes, sha256 } from '../../protocol/hashes.ts';
import type { CommitRequest, VersionMessage } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { streamVersions } from '../../storage/archive/reading/read-tree.ts';
import { claimBlocks } from '../../storage/archive/writing/claim.ts';
import { commitVersions } from '../../storage/archive/writing/commit.ts';
import { claimLists, storeLists } from '../../storage/archive/writing/lists.ts';
import { finishRun, startRun } from '../../storage/archive/writing/runs.ts';
import { uploadBlocks } from '../../storage/archive/writing/upload.ts';
import { distinctNames, type SentVersion, shortName, splitNames } from './model.ts';
import { readArchive } from './reading.ts';
import { type Device, NetworkError, type World } from './world.ts';

/** Blocks a vault's files are made of: few, so that they are shared, freed, and come back all the time. */
const blocksPerVault = 48;
const filesPerDevice = 10;

/** What is on a device's disk: it survives the agent's crash. */
export interface DeviceState {
  device: Device;
  lastCommit: { commitId: Buffer; seq: number } | null;
  /** Paths that exist in the archive, as far as the agent knows. */
  paths: Set<string>;
}

export const newDeviceState = (device: Device): DeviceState => ({ device, lastCommit: null, paths: new Set() });

/** Block number i of a vault: always the same bytes, of any length from 64 to 127: as long as a sealed block at least. */
function blockBytes(vault: number, i: number): Buffer {
  const digest = sha256(Buffer.from(`block ${i} of vault ${vault}`));
  const length = 64 + (digest[0]! % 64);
  return Buffer.concat([digest, digest, digest, digest]).subarray(0, length);
}

/**
 * The agent's life, until it is killed.
 * @param restsFor steps at most between two things it does
 */
export async function runAgent(world: World, state: DeviceState, restsFor: number): Promise<void> {
  const agent = new Agent(world, state);
  for (;;) {
    await world.scheduler.sleep('think', world.random.below(restsFor));
    await agent.act().catch((error: unknown) => {
      if (!(error instanceof NetworkError) && !(error instanceof Problem)) throw error;
      world.scheduler.say(`device ${state.device.index}: ${error.message}`);
    });
  }
}

interface Made {
  versions: VersionMessage[];
  hashes: Buffer[];
  lists: { hash: Buffer; blocks: Buffer }[];
}

export class Agent {
  readonly #world: World;
  readonly #state: DeviceState;
  #run: number | null = null;

  constructor(world: World, state: DeviceState) {
    this.#world = world;
    this.#state = state;
  }

  async act(): Promise<void> {
    const { random } = this.#world;
    const dice = random.next();
    if (dice < 0.7) return this.backUp();
    if (dice < 0.78) return void (await this.#upload(this.#someBlocks(1 + random.below(4)))); // never committed
    if (dice < 0.94) return this.readBack();
    if (this.#run !== null) await this.#finish();
  }

  // --- backing up ----------------------------------------------------------------------------------------------------

  async backUp(): Promise<void> {
    const { random, scheduler } = this.#world;
    this.#run ??= await this.#start();
    const made = this.#makeVersions();
    // Or it believes that the vault has everything, as after a commit that was refused or long ago.
    if (made.hashes.length > 0 && random.chance(0.65)) {
      const wanted = random.chance(0.8) ? await this.#claim(made.hashes) : made.hashes;
      if (wanted.length > 0) await this.#upload(wanted);
    }
    await this.#sendLists(made);
    if (random.chance(0.3)) await scheduler.sleep('wait', random.below(100));
    // What was promised a while ago is asked for once more.
    if (made.hashes.length > 0 && random.chance(0.3)) {
      const wanted = await this.#claim(made.hashes);
      if (wanted.length > 0) await this.#upload(wanted);
    }
    try {
      await this.#commit(made);
    } catch (error) {
      // Another agent of this device has started a run, which ended this one.
      if (!(error instanceof Problem) || error.code !== 'run_finished') throw error;
      this.#run = await this.#start();
      await this.#commit(made);
    }
  }

  /** Deletes every path. @returns whether there was one */
  async deleteAll(): Promise<boolean> {
    const paths = [...this.#state.paths];
    if (paths.length === 0) return false;
    this.#run ??= await this.#start();
    const made: Made = { versions: paths.map((path) => this.#version(path, [], [])), hashes: [], lists: [] };
    await this.#commit(made);
    return true;
  }

  async #start(): Promise<number> {
    const { device, lastCommit } = this.#state;
    try {
      const { run } = await this.#world.request('run', (storage) =>
        startRun(storage, device, { lastCommit, roots: [] }),
      );
      return run;
    } catch (error) {
      if (error instanceof Problem && error.code === 'archive_rolled_back') await this.#reconcile();
      throw error;
    }
  }

  async #finish(): Promise<void> {
    const run = this.#run!;
    this.#run = null;
    const counts = { filesSeen: 0, filesChanged: 0, filesDeleted: 0, bytesSeen: 0, bytesSent: 0 };
    await this.#world.request('run', (storage) =>
      finishRun(storage, { ...this.#state.device, run }, {
        counts,
        skipped: [],
        outcome: 'completed',
        reason: '',
      } as unknown as Parameters<typeof finishRun>[2]),
    );
  }

  /** The server was set back: what the agent remembers of it is of no use. */
  async #reconcile(): Promise<void> {
    const { device } = this.#state;
    this.#run = null;
    const paths = await this.#world.request('read', async (storage) => {
      const found = new Set<string>();
      const all = { path: Buffer.from('/'), at: null, seq: null, after: null, deleted: false };
      for await (const frame of streamVersions(storage, device, all))
        if (frame.frame === 'versions') for (const version of frame.versions) found.add(version.path.toString());
      return found;
    });
    this.#state.paths = paths;
    this.#state.lastCommit = null;
  }

  #someBlocks(count: number): Buffer[] {
    const { random, model } = this.#world;
    const { vault } = this.#state.device;
    return Array.from({ length: count }, () => model.addContent(blockBytes(vault, random.below(blocksPerVault))));
  }

  #makeVersions(): Made {
    const { random } = this.#world;
    const { paths, device } = this.#state;
    const made: Made = { versions: [], hashes: [], lists: [] };
    const names = new Set(Array.from({ length: 1 + random.below(4) }, () => random.below(filesPerDevice)));
    for (const i of names) {
      const path = i < 2 ? `/top${i}` : `/folder${i % 2}/file${i}`;
      if (paths.has(path) && random.chance(0.25)) {
        made.versions.push(this.#version(path, [], []));
        continue;
      }
      if (random.chance(0.2)) {
        // A large file: lists of few blocks each, one of them the same in many files.
        const lists = Array.from({ length: 1 + random.below(2) }, () => {
          const first = random.below(12) * 4;
          const blocks = Array.from({ length: 4 }, (_, k) =>
            this.#world.model.addContent(blockBytes(device.vault, (first + k) % blocksPerVault)),
          );
          const joined = joinHashes(blocks);
          return { hash: sha256(joined), blocks: joined };
        });
        for (const list of lists) {
          this.#world.model.lists.set(shortName(list.hash), distinctNames(list.blocks));
          this.#world.model.listBlocks.set(shortName(list.hash), splitNames(list.blocks));
          made.lists.push(list);
          made.hashes.push(...Array.from({ length: hashCount(list.blocks) }, (_, k) => hashAt(list.blocks, k)));
        }
        made.versions.push(this.#version(path, [], lists));
        continue;
      }
      const hashes = this.#someBlocks(random.below(6));
      made.hashes.push(...hashes);
      made.versions.push(this.#version(path, hashes, [], random.chance(0.05) ? 'directory' : 'file'));
    }
    made.hashes = distinct(made.hashes);
    made.lists = [...new Map(made.lists.map((list) => [shortName(list.hash), list])).values()];
    return made;
  }

  /** No blocks and no lists: a deletion when the path exists, else an empty file. */
  #version(
    path: string,
    hashes: Buffer[],
    lists: { hash: Buffer; blocks: Buffer }[],
    kind: 'file' | 'directory' = 'file',
  ): VersionMessage {
    const { model, random } = this.#world;
    const deleted = hashes.length + lists.length === 0 && this.#state.paths.has(path);
    const content = [...hashes, ...lists.flatMap((list) => splitNames(list.blocks))];
    const named = kind === 'file' ? hashes : [];
    const inFile = kind === 'file' ? content : [];
    const size = inFile.reduce((sum, hash) => sum + model.contents.get(shortName(hash))!.byteLength, 0);
    const mac = random.bytes(32);
    const sent: SentVersion = {
      path,
      deleted,
      size,
      blocks: [...new Set(named.map(shortName))],
      lists: [...new Set(lists.map((list) => shortName(list.hash)))],
      content: inFile.map(shortName),
    };
    model.sent.set(shortName(mac), sent);
    return {
      path: Buffer.from(path),
      kind,
      size,
      mtime: 0,
      attributes: Buffer.from(path),
      blocks: joinHashes(named),
      lists: joinHashes(lists.map((list) => list.hash)),
      mac,
      deleted,
    };
  }

  /** @returns the blocks to send */
  async #claim(hashes: readonly Buffer[]): Promise<Buffer[]> {
    const world = this.#world;
    const { vault } = this.#state.device;
    const epoch = world.promiseEpoch;
    const { send, until } = await world.request('claim', (storage) => claimBlocks(storage, vault, joinHashes(hashes)));
    const kept = hashes.filter((_, i) => !bitAt(send, i));
    this.#promised(kept, until, epoch);
    return hashes.filter((_, i) => bitAt(send, i));
  }

  async #upload(hashes: readonly Buffer[]): Promise<void> {
    const world = this.#world;
    const { vault } = this.#state.device;
    const cut = world.random.chance(0.3) ? 1 + world.random.below(hashes.length) : hashes.length;
    for (const part of [hashes.slice(0, cut), hashes.slice(cut)]) {
      if (part.length === 0) continue;
      const bodies = part.map((hash) => world.model.contents.get(shortName(hash))!);
      const header = { blocks: joinHashes(part), lengths: bodies.map((bytes) => bytes.byteLength) };
      const epoch = world.promiseEpoch;
      const { until } = await world.request('upload', (storage) => uploadBlocks(storage, vault, header, each(bodies)));
      this.#promised(part, until, epoch);
    }
  }

  #promised(hashes: readonly Buffer[], until: Date, epoch: number): void {
    const { model, promiseEpoch } = this.#world;
    if (epoch !== promiseEpoch) return;
    for (const hash of hashes) model.promise(this.#state.device.vault, shortName(hash), until.getTime());
  }

  async #sendLists(made: Made): Promise<void> {
    if (made.lists.length === 0) return;
    const { vault } = this.#state.device;
    const names = joinHashes(made.lists.map((list) => list.hash));
    const { send } = await this.#world.request('claim lists', (storage) => claimLists(storage, vault, names));
    const wanted = made.lists.filter((_, i) => bitAt(send, i));
    if (wanted.length === 0) return;
    await this.#sendMissing(
      () => this.#world.request('store lists', (storage) => storeLists(storage, vault, wanted)),
      made,
    );
  }

  async #commit(made: Made): Promise<void> {
    const world = this.#world;
    const { device } = this.#state;
    const request: CommitRequest = {
      commitId: world.random.bytes(16),
      run: this.#run!,
      purgeEpoch: 0,
      versions: made.versions,
    };
    const digest = sha256(request.commitId);
    const generation = world.generation;
    try {
      const answer = await this.#sendMissing(
        () => world.request('commit', (storage) => commitVersions(storage, device, request, digest)),
        made,
      );
      this.#state.lastCommit = { commitId: request.commitId, seq: answer.firstSeq };
      for (const { path, deleted } of made.versions) {
        if (deleted) this.#state.paths.delete(path.toString());
        else this.#state.paths.add(path.toString());
      }
      // Acknowledged in a catalog that is gone: the next run's start tells the agent.
      if (generation !== world.generation) return;
      world.model.acknowledge(
        device.archive,
        answer.firstSeq,
        made.versions.map((version) => shortName(version.mac)),
      );
    } catch (error) {
      // Whether it took effect is not known, so neither is which paths exist.
      this.#state.paths.clear();
      if (error instanceof Problem) this.#run = null;
      throw error;
    }
  }

  /** Repeats a request that names blocks, sending first what the answer says is missing. */
  async #sendMissing<T>(send: () => Promise<T>, made: Made): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await send();
      } catch (error) {
        if (attempt === 5) throw error;
        if (error instanceof NetworkError) continue;
        if (!(error instanceof Problem)) throw error;
        if (error.code === 'unavailable') continue;
        if (error.code !== 'blocks_missing') throw error;
        const missing = (error.extras.missing as string[] | undefined) ?? [];
        const lists = (error.extras.missingLists as string[] | undefined) ?? [];
        if (missing.length > 0) await this.#upload(missing.map((hex) => Buffer.from(hex, 'hex')));
        const wanted = made.lists.filter((list) => lists.includes(list.hash.toString('hex')));
        if (wanted.length > 0) await this.#resendLists(wanted);
      }
    }
  }

  async #resendLists(lists: Made['lists']): Promise<void> {
    const { vault } = this.#state.device;
    await this.#upload(distinct(lists.flatMap((list) => splitNames(list.blocks))));
    await this.#world.request('store lists', (storage) => storeLists(storage, vault, lists));
  }

  // --- reading back --------------------------------------------------------------------------------------------------

  /** Streams an archive of the vault as of now, and reads some of what it names. */
  async readBack(): Promise<void> {
    const world = this.#world;
    const archives = world.devices.filter((device) => device.vault === this.#state.device.vault);
    const ref = world.random.pick(archives);
    await world.request('read', (storage) => readArchive(world, storage, ref));
  }

  /** Claims everything the model says the archive holds and sends what is asked for: damaged blocks are healed. */
  async healAll(): Promise<void> {
    const { device } = this.#state;
    const { model } = this.#world;
    const versions = (this.#world.checker.dump?.versions ?? []).filter((each) => each.archive === device.archive);
    const names = new Set(versions.flatMap((version) => model.sent.get(version.mac)?.content ?? []));
    const hashes = [...names].map((name) => sha256(model.contents.get(name)!));
    if (hashes.length === 0) return;
    const wanted = await this.#claim(hashes);
    if (wanted.length > 0) await this.#upload(wanted);
    const lists = new Set(versions.flatMap((version) => model.sent.get(version.mac)?.lists ?? []));
    for (const list of lists) {
      const blocks = joinHashes(model.listBlocks.get(list)!);
      const made = [{ hash: sha256(blocks), blocks }];
      const { send } = await this.#world.request('claim lists', (storage) =>
        claimLists(storage, device.vault, made[0]!.hash),
      );
      if (bitAt(send, 0)) await this.#resendLists(made);
    }
  }
}

async function* each(bodies: readonly Buffer[]): AsyncGenerator<Uint8Array> {
  yield* bodies;
}

const distinct = (hashes: readonly Buffer[]): Buffer[] => [
  ...new Map(hashes.map((hash) => [shortName(hash), hash])).values(),
];
