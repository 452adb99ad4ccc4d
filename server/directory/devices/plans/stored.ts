/**
 * What is stored of plans, read again; and which of them count for a device. A plan that cannot be read has no retention that
 * could be passed over: whoever prunes by plans has its faults instead, and deletes nothing.
 */
import type { FolderPolicy } from '../../../../storage/archive/retention/policies.ts';
import type { RetentionPolicy } from '../../../../storage/archive/retention/retention.ts';
import { readFolder } from './folders.ts';
import { PlanContent } from './shapes.ts';

/**
 * Of plans with one name the first, whatever the letters' case.
 * @param plans the nearest to the device first
 */
export function nearestOfEachName<Plan extends { name: string }>(plans: readonly Plan[]): Plan[] {
  const nearest = new Map<string, Plan>();
  for (const plan of plans) {
    const key = plan.name.toLowerCase();
    if (!nearest.has(key)) nearest.set(key, plan);
  }
  return [...nearest.values()];
}

export interface Fault {
  /** A path such as `retention.windows.1.untilDays` or `include.3`. */
  field: string;
  message: string;
}

/** Folders of which a plan says how long their files are kept; `include` as people wrote them. */
export interface RetentionOfPlan extends Pick<FolderPolicy, 'folders' | 'policy'> {
  include: string[];
}

export type ReadRetention =
  | { retention: RetentionOfPlan | null; faults?: never }
  | { retention?: never; faults: Fault[] };

/** How long a stored plan keeps what; null: it does not say. */
export function readRetentionOfPlan(content: unknown): ReadRetention {
  const parsed = PlanContent.safeParse(content);
  if (parsed.success) return retentionOf(parsed.data);
  return {
    faults: parsed.error.issues.map(({ path, message }) => {
      const field = path.join('.');
      return { field, message: `${field || 'the plan'}: ${message}` };
    }),
  };
}

/** The same of a plan in its shape, and what is wrong when it says how long, and not of which folders. */
export function retentionOf(content: { include: string[]; retention: RetentionPolicy | null }): ReadRetention {
  const { include, retention: policy } = content;
  if (policy === null) return { retention: null };
  const only = 'a plan with a retention of its own names its folders';
  if (include.length === 0) return { faults: [{ field: 'include', message: `${only}: include is empty` }] };
  const read = include.map((text) => readFolder(text));
  const faults = read.flatMap(({ fault }, i) => {
    const field = `include.${i}`;
    return fault === undefined ? [] : [{ field, message: `${only}: ${field} ${fault}` }];
  });
  if (faults.length > 0) return { faults };
  return { retention: { policy, include, folders: read.map(({ folder }) => folder!) } };
}
