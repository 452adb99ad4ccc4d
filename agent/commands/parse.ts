/** What people write on a command line, as numbers. Each function answers null for what it cannot read. */

const units: Record<string, number> = {
  '': 1,
  K: 1e3,
  KIB: 2 ** 10,
  KB: 1e3,
  M: 1e6,
  MIB: 2 ** 20,
  MB: 1e6,
  G: 1e9,
  GIB: 2 ** 30,
  GB: 1e9,
};

/** Bytes per second of '2MiB/s', '500 KB', '1000000'; bytes, not bits. */
export function parseRate(text: string): number | null {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*?)b?(?:\/s)?\s*$/i.exec(text);
  if (!match) return null;
  const unit = match[2]!.toUpperCase();
  const factor = units[unit] ?? units[`${unit}B`];
  const rate = factor === undefined ? 0 : Number(match[1]) * factor;
  return rate >= 1 ? rate : null;
}

/** A share of one processor, of '50%' or '0.5'. */
export function parseShare(text: string): number | null {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(%?)\s*$/.exec(text);
  if (!match) return null;
  const share = Number(match[1]) / (match[2] ? 100 : 1);
  return share > 0 && share <= 1024 ? share : null;
}

const spans: Record<string, number> = { s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** Milliseconds of '15m', '90s', '2h', '1d'. */
export function parseDuration(text: string): number | null {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)\s*$/i.exec(text);
  return match ? Number(match[1]) * spans[match[2]!.toLowerCase()]! : null;
}

/**
 * A moment, in milliseconds since the epoch: '2026-03-01' (its last moment), '2026-03-01 14:30', an ISO time, or how
 * long ago, '3d'. What names no time zone is local time. What is before 1970 cannot be asked of a server.
 */
export function parseMoment(text: string, now: number): number | null {
  const moment = parseAnyMoment(text, now);
  return moment === null || moment < 0 ? null : moment;
}

function parseAnyMoment(text: string, now: number): number | null {
  const ago = parseDuration(text.replace(/\s+ago\s*$/i, ''));
  if (ago !== null) return now - ago;
  const day = /^\s*(\d{4})-(\d{2})-(\d{2})\s*$/.exec(text);
  if (day) {
    const [year, month, date] = [Number(day[1]), Number(day[2]), Number(day[3])];
    const next = new Date(year, month - 1, date + 1);
    const valid = new Date(year, month - 1, date).getDate() === date;
    return valid ? next.getTime() - 1 : null;
  }
  if (!/^\s*\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}/.test(text)) return null;
  const moment = Date.parse(text.trim().replace(' ', 'T'));
  return Number.isNaN(moment) ? null : moment;
}
