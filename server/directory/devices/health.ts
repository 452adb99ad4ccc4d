/**
 * How well a device is, by the last run that *completed*: pure. A device that connects, and even commits, every day, and
 * whose runs never end well, is not well.
 */
import { z } from 'zod';

export const healthStates = ['ok', 'warning', 'critical'] as const;
export const Health = z.enum(healthStates);
export type Health = z.infer<typeof Health>;

const dayMs = 86_400_000;

/** Days without a completed run after which somebody is warned, or alarmed. */
export interface HealthBounds {
  warningDays: number;
  criticalDays: number;
}

/** @param times.since the end of the last completed run; of a device that never had one, when it was registered */
export function healthOf(times: { since: Date; now: Date }, { warningDays, criticalDays }: HealthBounds): Health {
  const silentDays = (times.now.getTime() - times.since.getTime()) / dayMs;
  if (silentDays >= criticalDays) return 'critical';
  return silentDays >= warningDays ? 'warning' : 'ok';
}
