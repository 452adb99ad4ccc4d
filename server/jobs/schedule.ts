/**
 * Keeps a repeating job repeating, whatever became of the queue: emptied, restored from yesterday, left behind by
 * another version, or scheduled by a clock that was wrong. Looking changes nothing while all is well, because putting
 * a schedule in again takes the job that waits out of its place in the queue.
 */

/** What of BullMQ's queue this needs. */
export interface SchedulingQueue {
  getJobScheduler(id: string): Promise<{ every?: number | undefined; next?: number | undefined } | undefined>;
  getJobSchedulers(start: number, end: number): Promise<{ key: string }[]>;
  getJobState(id: string): Promise<string>;
  upsertJobScheduler(id: string, repeat: { every: number }, template: { name: string; data: object }): Promise<unknown>;
  removeJobScheduler(id: string): Promise<unknown>;
}

const schedulersMax = 1_000;
const pending = new Set(['waiting', 'active', 'delayed', 'prioritized', 'waiting-children']);

/** @returns whether something was amiss, and put right */
export async function keepScheduled(
  queue: SchedulingQueue,
  { name, everyMs }: { name: string; everyMs: number },
  now = Date.now(),
): Promise<boolean> {
  const scheduler = await queue.getJobScheduler(name);
  if (scheduler && scheduler.every === everyMs && scheduler.next !== undefined) {
    if (scheduler.next - now > 2 * everyMs) await queue.removeJobScheduler(name);
    // Its next job makes the one after it. One that has ended or is gone makes none.
    else if (pending.has(await queue.getJobState(jobIdAt(name, scheduler.next)))) return false;
  }
  await queue.upsertJobScheduler(name, { every: everyMs }, { name, data: {} });
  return true;
}

/** Ends the schedules of jobs that are no more. */
export async function forgetOthers(queue: SchedulingQueue, names: ReadonlySet<string>): Promise<void> {
  for (const { key } of await queue.getJobSchedulers(0, schedulersMax))
    if (!names.has(key)) await queue.removeJobScheduler(key);
}

/** BullMQ's own name of a scheduler's job. */
function jobIdAt(scheduler: string, dueMs: number): string {
  return `repeat:${scheduler}:${dueMs}`;
}
