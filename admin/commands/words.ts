/** One value of an answer as people read it, on one line. */
import { printable } from './printable.ts';

const isMoment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/;

/** @param name of the property: what ends in `Bytes` is a size */
export function valueInWords(name: string, value: unknown): string {
  switch (typeof value) {
    case 'string':
      return isMoment.test(value) ? momentInWords(Date.parse(value)) : printable(value);
    case 'number':
      return /bytes$/i.test(name) && value >= 0 ? bytesInWords(value) : String(value);
    case 'boolean':
      return value ? 'yes' : 'no';
  }
  if (value === null || value === undefined) return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map((each) => valueInWords(name, each)).join(', ');
  return objectInWords(value as Record<string, unknown>);
}

/** By what an object is known: its name and number, its outcome and when, its state, its role. Others by all they hold. */
function objectInWords(object: Record<string, unknown>): string {
  const { id, guid, name, state, role, kind } = object;
  const number = id ?? guid;
  if (typeof name === 'string')
    return number === undefined ? printable(name) : `${printable(name)} (${valueInWords('', number)})`;
  if (typeof kind === 'string' && number !== undefined) return `${printable(kind)} ${valueInWords('', number)}`;
  if ('outcome' in object) return outcomeInWords(object);
  if (typeof state === 'string') return printable(state);
  if (typeof role === 'string') return printable(role);
  const pairs = Object.entries(object).filter(([, value]) => value !== null && value !== undefined);
  return pairs.map(([name, value]) => `${printable(name)}: ${valueInWords(name, value)}`).join(', ') || '-';
}

/** Something that takes its time, as a backup run: how it ended and when, or since when it goes on. */
function outcomeInWords({ outcome, startedAt, finishedAt, reason }: Record<string, unknown>): string {
  if (typeof outcome !== 'string')
    return startedAt === undefined ? 'under way' : `under way since ${valueInWords('', startedAt)}`;
  const why = typeof reason === 'string' && reason !== '' ? ` (${printable(reason)})` : '';
  return `${printable(outcome)} ${valueInWords('', finishedAt ?? startedAt)}${why}`;
}

export function bytesInWords(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** Local time, to the second: what restores and backups take is often less than a minute. */
export function momentInWords(ms: number): string {
  const date = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
