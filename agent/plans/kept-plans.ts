/**
 * What the agent keeps of its plans in its folder: as the server told them last, for when it is away, and when each was begun.
 * A file that is damaged, or of another registration, counts as none: the plans are asked for anew, and each is due.
 */
import type { PlanMessage } from '../../protocol/messages.ts';
import { PlansAnswer } from '../../protocol/messages.ts';
import { validate } from '../../protocol/wire.ts';
import { homeFile, readTextFile, writePrivateFile } from '../state/home.ts';
import type { Registration } from '../state/registration.ts';
import { planKey } from './read-plan.ts';
import type { LastRun } from './schedule.ts';

export interface KeptPlans {
  /** In the order in which plans that are due together are run. */
  plans: PlanMessage[];
  /** Of the server's answer; null: it gave none. */
  etag: string | null;
  /** When the server was last asked and answered, by this machine's clock. */
  askedAtMs: number;
  /** By key; of plans that are gone none. */
  runs: Map<string, LastRun>;
  /** Folders that were told to be missing, by `missingFolder`: told once. */
  told: Set<string>;
  /**
   * The archive path (latin1) of each folder as it was when the folder was last there, by its local path: what is not there
   * cannot be asked for its links and the case of its letters.
   */
  places: Map<string, string>;
}

/** Names a folder of a plan in `told`. No plan's name and no path holds a NUL. */
export const missingFolder = (plan: PlanMessage, folder: string): string => `${planKey(plan)}\0${folder}`;

const ownerOf = ({ url, guid, archive }: Registration): string => `${url} ${guid} ${archive}`;

export function readKeptPlans(home: string, registration: Registration): KeptPlans | null {
  const text = readTextFile(homeFile(home, 'plans.json'));
  if (text === null) return null;
  try {
    const parsed = JSON.parse(text) as Record<string, unknown>;
    if (parsed.of !== ownerOf(registration) || !Number.isSafeInteger(parsed.askedAtMs)) return null;
    const { plans } = validate(PlansAnswer, parsed);
    const runs = Object.entries(parsed.runs as Record<string, LastRun>).filter(
      ([, { startedAtMs, ended }]) => Number.isFinite(startedAtMs) && typeof ended === 'boolean',
    );
    return {
      plans,
      etag: typeof parsed.etag === 'string' ? parsed.etag : null,
      askedAtMs: parsed.askedAtMs as number,
      runs: new Map(runs),
      told: new Set((parsed.told as unknown[]).map(String)),
      places: new Map(Object.entries((parsed.places ?? {}) as object).map(([folder, path]) => [folder, String(path)])),
    };
  } catch {
    return null;
  }
}

export function writeKeptPlans(home: string, registration: Registration, kept: KeptPlans): void {
  const { plans, etag, askedAtMs, runs, told, places } = kept;
  const document = {
    of: ownerOf(registration),
    askedAtMs,
    etag,
    plans,
    runs: Object.fromEntries(runs),
    told: [...told],
    places: Object.fromEntries(places),
  };
  writePrivateFile(homeFile(home, 'plans.json'), `${JSON.stringify(document, null, 2)}\n`);
}

/** What is kept after the server answered. */
export function withAnswer(
  before: KeptPlans | null,
  answer: { plans: PlanMessage[]; etag: string | null },
  askedAtMs: number,
): KeptPlans {
  const keys = new Set(answer.plans.map(planKey));
  const runs = new Map([...(before?.runs ?? [])].filter(([key]) => keys.has(key)));
  const told = [...(before?.told ?? [])].filter((each) => keys.has(each.slice(0, each.indexOf('\0'))));
  return { ...answer, askedAtMs, runs, told: new Set(told), places: new Map(before?.places) };
}
