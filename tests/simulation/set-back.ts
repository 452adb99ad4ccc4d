/**
 * A catalog that is set back in time, as when it is restored from a backup, and the operator who says afterwards that it
 * is the bucket's: until then it must delete nothing.
 */
import { adopt } from '../../storage/archive/checking/adopt.ts';
import { contestedKey, fenceKey } from '../../storage/archive/checking/fence-object.ts';
import { beatMs } from './settings.ts';
import type { World } from './world.ts';

export class SetBack {
  readonly #world: World;
  #keptNonces: ReadonlySet<string> | null = null;
  #keptLive: readonly string[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  get hasKept(): boolean {
    return this.#keptNonces !== null;
  }

  /** Keeps the catalog as it is, to be set back to. */
  async keep(): Promise<void> {
    const { lane, scheduler } = this.#world;
    await lane.keep('earlier');
    const { rows } = await lane.monitor.query('SELECT nonce, previous FROM fence');
    this.#keptNonces = new Set(`${rows[0].nonce} ${rows[0].previous ?? ''}`.split(' '));
    this.#keptLive = this.#world.checker.dump!.objects.filter(({ state }) => state === 'live').map(({ key }) => key);
    scheduler.say('the catalog is kept');
  }

  /** Whether the kept catalog names an object that the bucket holds no more. */
  get hasLostAny(): boolean {
    return this.#keptLive.some((key) => !this.#world.bucket.objects.has(key));
  }

  /** Whether setting it back is something that the fence can see: a renewal that the kept catalog lacks is in the bucket. */
  async isFenceNewer(): Promise<boolean> {
    const { scheduler, bucket, catalogId } = this.#world;
    await scheduler.landEverything();
    const fence = bucket.objects.get(fenceKey(catalogId));
    return fence !== undefined && !this.#keptNonces?.has(JSON.parse(Buffer.from(fence.bytes).toString()).nonce);
  }

  /** Whether the mark is there that stops all deleting until somebody adopts. */
  get isContested(): boolean {
    return this.#world.bucket.objects.has(contestedKey(this.#world.catalogId));
  }

  /**
   * The catalog is what it was; everything connected to it loses its connection. This takes longer than any request to
   * the store can be late, or any job of a worker keeps trying.
   */
  async happen(): Promise<void> {
    const world = this.#world;
    const { lane, scheduler, bucket } = world;
    await scheduler.landEverything();
    await world.look();
    world.generation++;
    await lane.rollBackAll();
    await lane.setBack('earlier');
    this.#keptNonces = null;
    world.wentBack();
    const dump = await world.acceptCatalog();
    world.model.taken.clear();
    for (const { archive } of world.devices) {
      const there = new Map(
        dump.versions.filter((each) => each.archive === archive).map((each) => [each.seq, each.mac]),
      );
      const acknowledged = world.model.acknowledgedOf(archive);
      for (const [seq, mac] of acknowledged) if (there.get(seq) !== mac) acknowledged.delete(seq);
    }
    for (const object of dump.objects)
      if (object.state === 'live' && !bucket.objects.has(object.key)) world.lostObjects.add(object.key);
    scheduler.say('the catalog is set back');
  }

  /** The operator stops the workers, waits, and says that this catalog is the bucket's. Repeated until it is done. */
  async adopt({ force }: { force: boolean }): Promise<void> {
    const world = this.#world;
    await world.scheduler.meanwhile(() => world.scheduler.landEverything());
    await world.scheduler.meanwhile(() => world.advance(3 * beatMs));
    const { storage } = world.workers[0]!;
    await world.operation('adopt', () => adopt(storage, { take: 'over', beatMs, pageMax: 5, force }));
    world.setBackAtStep = null;
    world.lostObjects.clear();
    world.scheduler.say('the catalog is adopted');
  }
}
