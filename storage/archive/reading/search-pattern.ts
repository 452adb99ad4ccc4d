/**
 * What a search asks of names and paths: a part of a name, or a pattern. In a pattern `*` is any number of characters and
 * `?` one, both without slashes; `[a-z]` and `[!a-z]` one of a set; `\` takes what follows as it is. A pattern with a slash
 * is about the whole path, in which a name `**` is any number of names; without a leading slash it may begin anywhere.
 *
 * Matching goes over a name once and keeps one place to come back to, so it takes no longer than the length of the
 * name times that of the pattern, whatever the two are: a pattern comes from outside, and is run on millions of names.
 */
import { Problem } from '../../../protocol/problems.ts';
import { foldName, foldText, isPlain } from './search-text.ts';

export const searchBounds = {
  /** UTF-16 code units of a pattern or a part of a name. */
  textMax: 256,
  /** `*` in a pattern; `**` counts as one. */
  starsMax: 16,
} as const;

/** What the database leaves out by itself, before names are compared here: nothing that could match. */
export interface Prefilter {
  /** No name that matches has fewer bytes. */
  bytesMin: number;
  /** Every name that matches is LIKE it, as bytes. */
  like: Buffer | null;
  /** Every name that matches, escaped as PostgreSQL's `encode(name, 'escape')` does and in lower case, holds it. */
  holds: string | null;
}

export interface NameQuery {
  prefilter: Prefilter;
  /** What the folded name is compared with: of it, whichever part. For a query about paths of their last name. */
  tokens: readonly Token[];
  /** Of what each name is compared with, in characters: times that of a name it bounds the steps that the name takes. */
  length: number;
  /** Whether a name, folded, may be that of what is searched for. For a query about paths not the whole answer. */
  matchesName(name: string): boolean;
  /** About paths: null for a query about names. */
  paths: PathQuery | null;
}

/** The places in the pattern that the names so far have led to. */
export type PathState = readonly number[];

export interface PathQuery {
  /** The root's. */
  start: PathState;
  /** Where the next name, folded, leads to. Empty: nothing in there matches, nor below. */
  enter(state: PathState, name: string): PathState;
  /** Whether a name, folded, in a folder with that state matches. */
  accepts(state: PathState, name: string): boolean;
}

export type Token =
  | { kind: 'character'; character: string }
  | { kind: 'any' }
  | { kind: 'star' }
  | { kind: 'set'; ranges: readonly (readonly [from: number, to: number])[]; negated: boolean };

const star: Token = { kind: 'star' };
/** `**`: any number of names. */
const anyNames = 'any names';
type Segment = readonly Token[] | typeof anyNames;

/** Every name. */
export const everyName: NameQuery = queryOfName([star]);

/** Names that hold a text. @throws Problem out_of_bounds */
export function queryOfPart(part: string): NameQuery {
  assertLength(part, 'name');
  const folded = foldText(part);
  const tokens = [...folded].map((character): Token => ({ kind: 'character', character }));
  return {
    prefilter: prefilterOf(tokens),
    tokens,
    length: tokens.length,
    matchesName: (name) => name.includes(folded),
    paths: null,
  };
}

/** Names or paths that a pattern matches. @throws Problem out_of_bounds, malformed_request */
export function queryOfPattern(pattern: string): NameQuery {
  assertLength(pattern, 'pattern');
  const tokens = tokensOf([...foldText(pattern)]);
  const stars = tokens.filter((token, i) => token === star && tokens[i - 1] !== star).length;
  if (stars > searchBounds.starsMax)
    throw new Problem('out_of_bounds', `a pattern has at most ${searchBounds.starsMax} stars`, { field: 'pattern' });
  if (!tokens.some(isSlash)) return queryOfName(tokens);
  const segments = segmentsOf(tokens);
  const last = segments.at(-1)! as readonly Token[];
  return { ...queryOfName(last), paths: pathQueryOf(segments) };
}

function assertLength(text: string, field: string): void {
  if (text.length < 1 || text.length > searchBounds.textMax)
    throw new Problem('out_of_bounds', `${field} has ${text.length} characters, 1 to ${searchBounds.textMax}`, {
      field,
    });
}

const refused = (detail: string): Problem => new Problem('malformed_request', detail, { field: 'pattern' });

function tokensOf(characters: readonly string[]): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at]!;
    if (character === '*') tokens.push(star);
    else if (character === '?') tokens.push({ kind: 'any' });
    else if (character === '[') {
      const set = setAt(characters, at);
      tokens.push(set.token);
      at = set.end;
    } else if (character === '\\') {
      const escaped = characters[++at];
      if (escaped === undefined) throw refused('nothing follows the last backslash');
      tokens.push({ kind: 'character', character: escaped });
    } else tokens.push({ kind: 'character', character });
  }
  return tokens;
}

/** A set of characters, `]` first or escaped being one of them. */
function setAt(characters: readonly string[], open: number): { token: Token; end: number } {
  let at = open + 1;
  const negated = characters[at] === '!' || characters[at] === '^';
  if (negated) at++;
  const ranges: [number, number][] = [];
  const next = (): string => {
    if (characters[at] === '\\') at++;
    const character = characters[at++];
    if (character === undefined) throw refused('a set has no end: to search for the bracket itself, write \\[');
    if (character === '/') throw refused('a set holds a slash, which no name does');
    return character;
  };
  for (let first = true; first || characters[at] !== ']'; first = false) {
    const from = next();
    const isRange = characters[at] === '-' && characters[at + 1] !== ']' && characters[at + 1] !== undefined;
    if (isRange) at++;
    const to = isRange ? next() : from;
    if (to.codePointAt(0)! < from.codePointAt(0)!)
      throw refused(`the set's range ${from}-${to} is the wrong way round`);
    ranges.push([from.codePointAt(0)!, to.codePointAt(0)!]);
  }
  return { token: { kind: 'set', ranges, negated }, end: at };
}

const isSlash = (token: Token): boolean => token.kind === 'character' && token.character === '/';

function segmentsOf(tokens: readonly Token[]): Segment[] {
  const parts: Token[][] = [[]];
  for (const token of tokens) {
    if (isSlash(token)) parts.push([]);
    else parts.at(-1)!.push(token);
  }
  const anchored = parts[0]!.length === 0;
  if (anchored) parts.shift();
  if (parts.some((part) => part.length === 0))
    throw refused('a pattern of a path has an empty name, or ends with a slash');
  const segments: Segment[] = parts.map((part) =>
    part.length === 2 && part.every((t) => t === star) ? anyNames : part,
  );
  if (!anchored) segments.unshift(anyNames);
  // What lies in a folder, and not the folder itself.
  if (segments.at(-1) === anyNames) segments.push([star]);
  return segments;
}

function queryOfName(tokens: readonly Token[]): NameQuery {
  return {
    prefilter: prefilterOf(tokens),
    tokens,
    length: tokens.length,
    matchesName: (name) => matches(tokens, name),
    paths: null,
  };
}

function pathQueryOf(segments: readonly Segment[]): PathQuery {
  /** With the places that `**` leads on to by being no name at all. */
  const closed = (places: Iterable<number>): number[] => {
    const all = new Set<number>();
    for (let place of places) {
      all.add(place);
      while (segments[place] === anyNames) all.add(++place);
    }
    return [...all];
  };
  const step = (state: PathState, name: string): number[] =>
    state.flatMap((place) => {
      const segment = segments[place];
      if (segment === undefined) return [];
      if (segment === anyNames) return [place];
      return matches(segment, name) ? [place + 1] : [];
    });
  const open = (places: Iterable<number>): PathState => closed(places).filter((place) => place < segments.length);
  return {
    start: open([0]),
    enter: (state, name) => open(step(state, name)),
    accepts: (state, name) => step(state, name).includes(segments.length),
  };
}

/** Goes over the text once; behind a star it comes back to where the last star ended, never further. */
export function matches(tokens: readonly Token[], text: string): boolean {
  const characters = /[\ud800-\udfff]/.test(text) ? [...text] : text;
  let at = 0;
  let token = 0;
  let lastStar = -1;
  let resume = 0;
  while (at < characters.length) {
    const wanted = tokens[token];
    if (wanted?.kind === 'star') {
      lastStar = token++;
      resume = at;
    } else if (wanted && isOf(wanted, characters[at]!)) {
      token++;
      at++;
    } else if (lastStar >= 0) {
      token = lastStar + 1;
      at = ++resume;
    } else return false;
  }
  while (tokens[token]?.kind === 'star') token++;
  return token === tokens.length;
}

function isOf(token: Token, character: string): boolean {
  switch (token.kind) {
    case 'character':
      return token.character === character;
    case 'any':
      return true;
    case 'set': {
      const point = character.codePointAt(0)!;
      return token.ranges.some(([from, to]) => point >= from && point <= to) !== token.negated;
    }
    case 'star':
      return false;
  }
}

/** By the longest run of characters whose bytes are known. */
function prefilterOf(tokens: readonly Token[]): Prefilter {
  const runs: string[] = [''];
  for (const token of tokens) {
    if (token.kind === 'character' && isPlain(token.character)) runs[runs.length - 1] += token.character;
    else runs.push('');
  }
  // A character of the folded text stands for a byte of the name at least.
  const bytesMin = tokens.filter((token) => token !== star).length;
  const bytesOf = (run: string): number => Buffer.byteLength(run);
  const run = runs.reduce((longest, each) => (bytesOf(each) > bytesOf(longest) ? each : longest));
  if (run === '') return { bytesMin, like: null, holds: null };
  const hasLetters = /[A-Z]/.test(run);
  return { bytesMin, like: likeOf(run), holds: hasLetters ? escapedInPostgres(Buffer.from(run)).toLowerCase() : null };
}

/** The run with any byte in the place of a letter, anywhere in the name: cheap, and it leaves little of some searches. */
function likeOf(run: string): Buffer {
  const shape = run.replaceAll(/[%_\\]/g, '\\$&').replaceAll(/[A-Z]/g, '_');
  return Buffer.from(`%${shape}%`);
}

function escapedInPostgres(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replaceAll('\\', '\\\\')
    .replaceAll(/[\u0080-\u00ff]/g, (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

/** Whether a path, from the root, is what the query asks for. */
export function matchesPath(query: NameQuery, names: readonly Uint8Array[]): boolean {
  const folded = names.map(foldName);
  const last = folded.pop();
  if (last === undefined || !query.matchesName(last)) return false;
  if (!query.paths) return true;
  const { start, enter, accepts } = query.paths;
  return accepts(folded.reduce(enter, start), last);
}
