/**
 * The kinds of values a setting can have, as people write them: `64MiB`, `7d`, `on`. Each says what it expects, so
 * that a mistake can be answered with how it should be written.
 */
import { z } from 'zod';

const sizeUnits: Record<string, number> = { '': 1, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 };
const timeUnits: Record<string, number> = { ms: 1, s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** What the reference table says about a setting. */
export interface About {
  says: string;
  /** Shown only masked. */
  secret?: boolean;
  /** Shown where there is no default in the schema, because it depends on the machine. */
  defaultText?: string;
}

export interface SettingMeta extends About {
  expected: string;
  [key: string]: unknown;
}

const meta = <T extends z.ZodType>(schema: T, expected: string, about: About): T =>
  schema.meta({ ...about, expected } satisfies SettingMeta) as T;

/** Bytes, written as a number or with KiB, MiB, GiB or TiB. */
export function size(bounds: { min: string; max: string; default: string }, about: About) {
  const expected = `a size from ${bounds.min} to ${bounds.max}, like 64MiB`;
  return meta(quantity(sizeUnits, bounds, expected), expected, about);
}

/** Milliseconds, written with ms, s, min, h or d. */
export function duration(bounds: { min: string; max: string; default: string }, about: About) {
  const expected = `a time from ${bounds.min} to ${bounds.max}, like 30s, 15min, 1h or 7d`;
  return meta(quantity(timeUnits, bounds, expected), expected, about);
}

function quantity(
  units: Record<string, number>,
  bounds: { min: string; max: string; default: string },
  expected: string,
) {
  const parse = (value: unknown): number | null => {
    const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(String(value).trim());
    const unit = units[match?.[2] ?? ''];
    return match && unit !== undefined ? Math.round(Number(match[1]) * unit) : null;
  };
  const [min, max] = [parse(bounds.min)!, parse(bounds.max)!];
  return z
    .union([z.string(), z.number()])
    .transform((value, context) => {
      const parsed = parse(value);
      if (parsed !== null && parsed >= min && parsed <= max) return parsed;
      context.issues.push({ code: 'custom', input: value, message: expected });
      return z.NEVER;
    })
    .prefault(bounds.default);
}

export function integer(bounds: { min: number; max: number; default: number }, about: About) {
  const expected = `a whole number from ${bounds.min} to ${bounds.max}`;
  const text = z.string().regex(/^\d+$/).transform(Number);
  const schema = z.union([z.number(), text]).pipe(z.int().min(bounds.min).max(bounds.max));
  return meta(schema.prefault(bounds.default), expected, about);
}

/** A port number, or nothing: then there is no such port. */
export function optionalPort(about: About) {
  const text = z.string().regex(/^\d+$/).transform(Number);
  const schema = z.union([z.number(), text]).pipe(z.int().min(0).max(65_535));
  return meta(schema.optional(), 'a whole number from 0 to 65535', about);
}

export function choice<const T extends readonly [string, ...string[]]>(values: T, fallback: T[number], about: About) {
  return meta(z.enum(values).prefault(fallback as never), `one of ${values.join(', ')}`, about);
}

/** `on` or `off`; in a file also true and false. */
export function toggle(fallback: 'on' | 'off', about: About) {
  const words: Record<string, boolean> = { on: true, true: true, off: false, false: false };
  const expected = 'on or off';
  const schema = z.union([z.string(), z.boolean()]).transform((value, context) => {
    const parsed = words[String(value)];
    if (parsed !== undefined) return parsed;
    context.issues.push({ code: 'custom', input: value, message: expected });
    return z.NEVER;
  });
  return meta(schema.prefault(fallback), expected, about);
}

export function text(about: About) {
  return meta(z.string().min(1).max(1_024).optional(), 'text', about);
}

export function textWithDefault(fallback: string, about: About) {
  return meta(z.string().min(1).max(1_024).prefault(fallback), 'text', about);
}

/** A path, absolute or relative to where the server is started. */
export function path(about: About) {
  return meta(z.string().min(1).max(4_096).optional(), 'a path', about);
}

export function url(protocols: readonly string[], about: About) {
  const expected = `a URL that begins with ${protocols.map((protocol) => `${protocol}://`).join(' or ')}`;
  const right = (value: string): boolean =>
    URL.canParse(value) && protocols.includes(new URL(value).protocol.slice(0, -1));
  return meta(z.string().max(2_048).refine(right).optional(), expected, about);
}

/** Several names with commas between them; in a file also an array. None is an empty list. */
export function names(form: RegExp, max: number, expected: string, about: About) {
  const schema = z
    .union([z.string().transform((value) => value.split(',').map((each) => each.trim())), z.array(z.string())])
    .pipe(z.array(z.string().max(2_048).regex(form)).min(1).max(max))
    .refine((all) => new Set(all).size === all.length);
  return meta(schema.optional(), expected, about);
}
