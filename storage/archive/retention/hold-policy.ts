/**
 * What a legal hold covers. Policies are never edited; and what this code does not understand covers everything, so
 * that an older server never deletes what a newer one's hold keeps.
 */
import { composedNames } from './path-names.ts';

/** Whose versions are asked about: alive from its commit until the next version of its file, by server time. */
export interface Lifetime {
  committedAt: number;
  /** The next version's commit; null: it is the file's latest. */
  replacedAt: number | null;
}

/**
 * As stored in holds.policy. Everything is optional: an empty policy covers every version of every file.
 * `from`, `until`: moments in UTC such as 2026-01-31T00:00:00Z; what was current at some moment between them is covered.
 * `paths`: folders or files, at least one, in UTF-8, from the root and without a slash at the end; what lies at or below
 * one is covered, however its letters are composed.
 */
export interface HoldPolicy {
  from?: string;
  until?: string;
  paths?: string[];
}

const knownKeys = new Set(['from', 'until', 'paths']);

/** Whether paths matter to a policy at all, so that they are only looked up when they do. */
export function looksAtPaths(policy: unknown): boolean {
  return parsePolicy(policy)?.paths !== undefined;
}

/**
 * @param path of the file; only asked for when looksAtPaths() says so
 */
export function holdCovers(policy: unknown, version: Lifetime, path: Buffer | null): boolean {
  const parsed = parsePolicy(policy);
  if (!parsed) return true;
  const { from, until, paths } = parsed;
  if (until !== undefined && version.committedAt > until) return false;
  // Moments are cut to milliseconds here: what was replaced in the same one may have been current.
  if (from !== undefined && version.replacedAt !== null && version.replacedAt < from) return false;
  if (paths === undefined || path === null) return true;
  const names = composedNames(path);
  return paths.some((folder) => folder.length <= names.length && folder.every((name, i) => name === names[i]));
}

/** Null: not understood. */
function parsePolicy(policy: unknown): { from?: number; until?: number; paths?: string[][] } | null {
  if (policy === null || typeof policy !== 'object' || Array.isArray(policy)) return null;
  if (Object.keys(policy).some((key) => !knownKeys.has(key))) return null;
  const { from, until, paths } = policy as Record<string, unknown>;
  const moments = { from: moment(from), until: moment(until) };
  if (Number.isNaN(moments.from) || Number.isNaN(moments.until)) return null;
  if (paths !== undefined && !(Array.isArray(paths) && paths.length > 0 && paths.every(isCanonicalPath))) return null;
  return {
    ...(moments.from !== undefined && { from: moments.from }),
    ...(moments.until !== undefined && { until: moments.until }),
    ...(paths !== undefined && { paths: (paths as string[]).map((path) => composedNames(Buffer.from(path))) }),
  };
}

function moment(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'string' && utcMoment.test(value) ? Date.parse(value) : Number.NaN;
}

// Without a zone a moment would be another one on every worker.
const utcMoment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/;

function isCanonicalPath(path: unknown): boolean {
  return typeof path === 'string' && (path === '/' || /^(\/[^/\0]+)+$/.test(path));
}
