/**
 * Kills server, worker and PostgreSQL with -9, again and again, while two agents back up trees that change and the
 * server's jobs take away what that leaves, every second or so; and starts again what it killed. Agents and jobs are
 * left to themselves. The server runs in two forms: `together` (one process), and `apart` (an api and a worker, whose
 * way to PostgreSQL is a port that stays, so that it lives on when PostgreSQL comes and goes).
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import type { TestAgent } from './agent.ts';
import { startChild } from './child.ts';
import { changeTree } from './churn.ts';
import { type Forwarding, startForwarding } from './proxy.ts';
import { type Random, seededRandom } from './random.ts';
import { RunningServer } from './server.ts';
import { type Snapshot, snapshot } from './tree.ts';
import { type Stage, stages, type UnderWay } from './under-way.ts';

const quickServer = fileURLToPath(new URL('./quick-server.child.ts', import.meta.url));
export const smallListsAgent = fileURLToPath(new URL('./small-lists-agent.child.ts', import.meta.url));

/** The longest that a kill waits for what it is aimed at. What is under way then is hit. */
const aimMs = 30_000;
/** A server whose PostgreSQL died ends by itself; when that takes longer, it is ended. */
const endsWithinMs = 5_000;
const startTimeoutMs = 60_000;

export type Form = 'together' | 'apart';
type Victim = 'node' | 'worker' | 'PostgreSQL';

export interface Kill {
  form: Form;
  /** `node` is the process of form `together`, and the api of form `apart`. */
  victims: readonly Victim[];
  /** Null: whenever the time has come. */
  aim: Stage | null;
  afterMs: number;
}

const victimsOf: Record<Form, readonly (readonly Victim[])[]> = {
  together: [['node'], ['PostgreSQL'], ['node', 'PostgreSQL']],
  apart: [['worker'], ['PostgreSQL'], ['worker', 'PostgreSQL'], ['worker'], ['node'], ['node', 'worker', 'PostgreSQL']],
};

/** Every stage is aimed at in turn, and every sixth kill at none. The form changes every fifth, or half way. */
export function planKills(count: number, random: Random): Kill[] {
  const roundsOfForm = Math.min(5, Math.ceil(count / 2));
  return Array.from({ length: count }, (_, i) => {
    const form: Form = Math.floor(i / roundsOfForm) % 2 === 0 ? 'together' : 'apart';
    const aim = [...stages, null][i % (stages.length + 1)]!;
    // After what it is aimed at was seen; or after the last start.
    return { form, victims: random.pick(victimsOf[form]), aim, afterMs: random.below(aim === null ? 3_000 : 25) };
  });
}

/** A server of either form. */
export class QuickServer extends RunningServer {
  readonly #proxy: Gate;
  form: Form = 'together';
  /** Times it did not end by itself in time after its PostgreSQL had died. */
  lateEnds = 0;
  #worker: Worker | null = null;
  #nodeMayEnd = true;

  private constructor(proxy: Gate) {
    super({ command: [quickServer, 'all', '--embedded'] });
    this.#proxy = proxy;
  }

  static async create(): Promise<QuickServer> {
    const server = new QuickServer(await openGate());
    await server.startAll('together').catch(async (error) => {
      await server.stop();
      throw error;
    });
    return server;
  }

  /**
   * Starts what does not run, in this form. Whatever runs in the other one is killed first.
   * @throws Error when a process has ended that nobody killed
   */
  async startAll(form: Form): Promise<void> {
    if (this.#worker?.runs === false || (!this.runs && !this.#nodeMayEnd))
      throw new Error(`a process ended by itself: ${this.logs().slice(-4_000)}`);
    if (form !== this.form) await this.strike(['node', 'worker']);
    this.form = form;
    if (!this.runs) {
      this.command = [quickServer, form === 'together' ? 'all' : 'api'];
      await this.start();
      this.#nodeMayEnd = false;
      this.#proxy.target = Number(new URL(this.databaseUrl).port);
    }
    if (form === 'apart' && !this.#worker) {
      const database = new URL(this.databaseUrl);
      database.port = String(this.#proxy.port);
      this.#worker = await startWorker(database.href, this.data);
    }
  }

  /** Kills at once, and resolves when all are gone; `node` with its PostgreSQL, because it does not live without. */
  async strike(victims: readonly Victim[]): Promise<void> {
    const postgres = victims.includes('PostgreSQL') ? this.killPostgres() : null;
    const node = victims.includes('node') ? this.kill('SIGKILL') : null;
    const worker = victims.includes('worker') ? this.#worker?.kill() : null;
    if (postgres || node) this.#nodeMayEnd = true;
    if (worker) this.#worker = null;
    await Promise.all([postgres, node, worker]);
    if (!victims.includes('PostgreSQL')) return;
    const late = setTimeout(() => {
      this.lateEnds++;
      this.kill('SIGKILL');
    }, endsWithinMs);
    await this.ended;
    clearTimeout(late);
  }

  override async stop(): Promise<number | null> {
    await this.#worker?.kill();
    const code = await super.stop();
    await this.#proxy.close();
    return code;
  }

  override logs(): string {
    return super.logs() + (this.#worker?.said ?? '');
  }
}

interface Worker {
  readonly runs: boolean;
  readonly said: string;
  kill(): Promise<unknown>;
}

async function startWorker(databaseUrl: string, data: string): Promise<Worker> {
  const { child, said, ready, ended } = startChild([quickServer, 'worker'], {
    name: 'worker',
    environment: {
      PATH: process.env.PATH,
      HOME: data,
      npm_lifecycle_event: 'start',
      HOLDFAST_DATABASE_URL: databaseUrl,
      HOLDFAST_OBJECTS_FOLDER: join(data, 'objects'),
      HOLDFAST_LOG_LEVEL: 'warn',
    },
    says: /Holdfast worker: ready/,
    readyTimeoutMs: startTimeoutMs,
  });
  let runs = true;
  void ended.then(() => {
    runs = false;
  });
  const kill = (): Promise<unknown> => {
    child.kill('SIGKILL');
    return ended;
  };
  try {
    await ready;
  } catch (error) {
    await kill();
    throw error;
  }
  return {
    get runs() {
      return runs;
    },
    get said() {
      return said();
    },
    kill,
  };
}

/** In front of a port that changes. */
interface Gate extends Forwarding {
  target: number;
}

async function openGate(): Promise<Gate> {
  const gate = { target: 0 };
  return Object.assign(gate, await startForwarding(() => gate.target));
}

/** Interval by interval of ten years the newest stays: an older version goes at the next prune, and deleted files too. */
export function strictPolicy(everyMinutes: 5_256_000 | 5_255_999): RetentionPolicy {
  return {
    windows: [
      { untilDays: 1, everyMinutes },
      { untilDays: 2, everyMinutes },
      { untilDays: 3, everyMinutes },
      { untilDays: null, everyMinutes },
    ],
    deletedAfterDays: 0,
    keepNewest: 0,
    keepWithinDays: 0,
  };
}

export async function setPolicy(server: RunningServer, policy: RetentionPolicy): Promise<void> {
  await server.query(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value)
     SELECT tenant_id, organization_id, 'retention.policy', $1 FROM organizations
         ON CONFLICT (organization_id, name) DO UPDATE SET value = EXCLUDED.value`,
    [JSON.stringify(policy)],
  );
}

/** Backs up a tree, changes it and backs it up again, until told to pause. */
export class Churn {
  readonly agent: TestAgent;
  readonly tree: string;
  readonly #random: Random;
  /** What the newest acknowledged backup holds, and when it had ended. */
  newest: { at: number; snapshot: Snapshot } | null = null;
  backups = 0;
  retries = 0;
  #going: Promise<void> | null = null;
  #paused = true;

  constructor(agent: TestAgent, tree: string, seed: number) {
    this.agent = agent;
    this.tree = tree;
    this.#random = seededRandom(seed);
    mkdirSync(tree, { recursive: true });
  }

  go(): void {
    this.#paused = false;
    this.#going ??= this.#loop();
    this.#going.catch(() => {}); // told by pause()
  }

  /** Resolves when the backup under way has ended. @throws what it ended with, if that was not completion */
  async pause(): Promise<void> {
    this.#paused = true;
    const going = this.#going;
    this.#going = null;
    await going;
  }

  async backUp(...options: string[]): Promise<void> {
    const { exitCode, events, errors } = await this.agent.run('backup', this.tree, ...options);
    const last = events.findLast(({ event }) => event === 'end') ?? events.at(-1);
    if (exitCode !== 0 || last?.outcome !== 'completed')
      throw new Error(`the agent ended with ${exitCode}: ${JSON.stringify(last)} ${errors}`);
    this.backups++;
    this.retries += events.filter(({ event }) => event === 'retry').length;
    await sleep(20); // by any clock the commit is earlier than this moment
    this.newest = { at: Date.now(), snapshot: snapshot(this.tree) };
  }

  async #loop(): Promise<void> {
    while (!this.#paused) {
      changeTree(this.tree, this.#random);
      await this.backUp();
    }
  }
}

export interface KillCounts {
  kills: number;
  byForm: Record<Form, number>;
  /** Kills at which this was under way; one kill may hit several. */
  hit: Record<Stage, number>;
  /** Kills at which nothing of it was. */
  idle: number;
}

export const noKills = (): KillCounts => ({
  kills: 0,
  byForm: { together: 0, apart: 0 },
  hit: Object.fromEntries(stages.map((stage) => [stage, 0])) as Record<Stage, number>,
  idle: 0,
});

/** One kill, and the start of what it ended. */
export async function killOnce(server: QuickServer, watch: UnderWay, kill: Kill, counts: KillCounts): Promise<void> {
  if (kill.form !== server.form) await server.startAll(kill.form);
  if (kill.aim === null) await sleep(kill.afterMs);
  else {
    await watch.until(kill.aim, aimMs);
    await sleep(kill.afterMs);
  }
  const found = await watch.look();
  const struck = server.strike(kill.victims);
  counts.kills++;
  counts.byForm[kill.form]++;
  for (const stage of found) counts.hit[stage]++;
  if (found.size === 0) counts.idle++;
  await struck;
  await server.startAll(kill.form);
}
