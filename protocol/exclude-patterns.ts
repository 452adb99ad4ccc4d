/**
 * How many wildcards a pattern of paths to leave out may have. Agents try patterns as regular expressions, which go through
 * every way to divide a name among the stars before they say no: four stars keep one name of 255 characters for seconds,
 * and eight for years. A pattern may come from whoever makes plans, and is tried on every file, so one that could take longer
 * than some tenths of a second on the worst of names is refused: by the server where it is made, by the agent where it is read.
 *
 * The ways are counted, and too many rather than too few. A star that is alone in its name adds none (what it stands for
 * ends at the slashes), nor does one with which the pattern ends. Each way to read the braces counts for itself.
 */

export const wildcardBounds = {
  /** Stars in one name of which each can be longer or shorter for the others. */
  starsMax: 3,
  /** Ways to read the braces. */
  readingsMax: 200,
} as const;

/** Of a name: what file systems allow. */
const nameLength = 255;
/** Three stars in a name, or two below a `**`: 30 to 500 ms where it was measured. Of one more it is seconds. */
const stepsMax = nameLength * waysOf(2);
/** Of all ways to read a pattern, together: they are written out to be counted. */
const writtenMax = 100_000;

/**
 * Why a pattern would take too long, in words that follow it; null: it would not.
 * @param backslash what it does: quotes the next character, separates names as on Windows, or is not known here
 */
export function wildcardFault(pattern: string, backslash: 'quotes' | 'separates' | 'unknown'): string | null {
  const text = pattern.trim().replace(/^!/, '');
  if (text === '' || pattern.trim().startsWith('#')) return null;
  const quoting = backslash !== 'separates' && isTooMuch(text, true);
  const separating = backslash !== 'quotes' && isTooMuch(text.replaceAll('\\', '/'), false);
  if (!quoting && !separating) return null;
  return `has too many wildcards: a name has at most ${wildcardBounds.starsMax} * that something follows, below a ** one less, and its braces can be read in at most ${wildcardBounds.readingsMax} ways`;
}

function isTooMuch(given: string, quotes: boolean): boolean {
  const text = literalsAway(given.replace(/\/+$/, ''), quotes);
  const isAnywhere = text.includes('/') && !/^(?:\/|~\/|[A-Za-z*?]:\/)/.test(text);
  const whole = isAnywhere && !text.startsWith('**/') ? `**/${text}` : text;
  // What a comma is near sets, or what a run of backslashes quotes, is not worth a parser: all counts as if it were in a row.
  if (/\[.*\{|\{.*\[/s.test(whole) || (quotes && whole.includes('\\\\'))) {
    const braces = whole.split('{').length - 1;
    const readings = braces === 0 ? 1 : ((whole.split(',').length - 1) / braces + 1) ** braces;
    return readings > wildcardBounds.readingsMax || readings * waysOf(runsOf(whole.replace(/\*+$/, ''))) > stepsMax;
  }
  const readings = readingsOf(whole, { left: writtenMax });
  if (readings === null || readings.length > wildcardBounds.readingsMax) return true;
  return readings.reduce((sum, reading) => sum + stepsIn(reading), 0) > stepsMax;
}

/** Each quoted character as one that means nothing. Of a run of backslashes it is not said which quotes. */
function literalsAway(text: string, quotes: boolean): string {
  return quotes ? text.replace(/(?<!\\)\\[^\\/]/g, '_') : text;
}

/** Ways to divide a name among so many stars. */
function waysOf(stars: number): number {
  let ways = 1;
  for (let i = 0; i < stars; i++) ways = (ways * (nameLength - i)) / (i + 1);
  return ways;
}

const runsOf = (text: string): number => text.match(/\*+/g)?.length ?? 0;

/** Where a brace was: stars to both sides of it are two. */
const seam = '\0';

/** What a pattern without braces may take. */
function stepsIn(reading: string): number {
  const names = reading.replace(/\*+\0*$/, '').split('/');
  const last = names.findLastIndex((name) => name.includes('*'));
  let folders = 0;
  let steps = 1;
  for (const [i, name] of names.entries()) {
    const isFolders = /^\*{2,}$/.test(name.replaceAll(seam, ''));
    if (isFolders) folders++;
    // Where its last star ends is said by the slash; in the last it is looked for.
    if (!isFolders || name.includes(seam)) steps *= waysOf(i === last ? runsOf(name) : Math.max(0, runsOf(name) - 1));
  }
  return steps * waysOf(folders);
}

function closing(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === '{') depth++;
    else if (text[at] === '}' && --depth === 0) return at;
  }
  return -1;
}

/** The pattern without braces, once for every way to choose among what they hold; null: they take too much. */
function readingsOf(text: string, room: { left: number }): string[] | null {
  const open = text.indexOf('{');
  const end = open < 0 ? -1 : closing(text, open);
  if (end < 0) {
    room.left -= text.length + 1;
    return room.left < 0 ? null : [text];
  }
  const readings: string[] = [];
  for (const choice of choicesOf(text.slice(open + 1, end))) {
    const some = readingsOf(text.slice(0, open) + seam + choice + seam + text.slice(end + 1), room);
    if (some === null) return null;
    readings.push(...some);
  }
  return readings;
}

function choicesOf(inside: string): string[] {
  const choices = [''];
  let depth = 0;
  for (const character of inside) {
    if (character === '{') depth++;
    else if (character === '}') depth--;
    if (character === ',' && depth === 0) choices.push('');
    else choices[choices.length - 1] += character;
  }
  return choices;
}
