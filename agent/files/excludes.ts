/**
 * Which paths a backup leaves out: the default list, then the user's patterns, as in .gitignore; the last rule that
 * matches decides, and `match` says which it was. docs/excludes.md tells users the same.
 *
 *   name       a file or folder of that name, anywhere          name/     only a folder
 *   /a/b       exactly there (from the archive's root)          a/b       wherever the path ends so
 *   *  ?  [x]  within one name      **  any number of folders   {a,b}     either
 *   ~/a        in the home folder   !rule  what it matches is backed up after all   # a comment
 *
 * As with git, what lies in a folder left out cannot be brought back by a later rule: the folder is never opened.
 */
import picomatch from 'picomatch';
import { wildcardFault } from '../../protocol/exclude-patterns.ts';
import type { FileKind } from '../../protocol/messages.ts';
import { joinPath, splitPath } from '../../protocol/paths.ts';
import { defaultExcludes } from './default-excludes.ts';
import type { Excludes, Platform } from './types.ts';

export interface ExcludeOptions {
  platform: Platform;
  /** Archive path of the home folder, for rules that begin with '~/'; null when there is none. */
  home: Buffer | null;
  /** The user's rules, in order. */
  patterns: readonly string[];
  /** Apply the default list first. */
  defaults: boolean;
  cacheTags?: boolean;
}

const patternLengthMax = 4_096;
const patternCountMax = 10_000;

interface Rule {
  words: string;
  order: number;
  keep: boolean;
  foldersOnly: boolean;
  /** Tested against the name when the pattern has no slash in it, else against the path. */
  onName: boolean;
  /** The literal to compare with, or a test. */
  literal: string | null;
  test: (text: string) => boolean;
}

/** @throws Error naming a rule that cannot be understood */
export function createExcludes(options: ExcludeOptions): Excludes {
  if (options.patterns.length > patternCountMax) throw new Error(`more than ${patternCountMax} exclude rules`);
  // Windows and macOS find a file whatever the case of its name, so their rules do too.
  const anyCase = options.platform !== 'linux';
  const fold = (text: string): string => (anyCase ? text.toLowerCase() : text);
  const rules: Rule[] = [];
  const add = (pattern: string, words: string): void => {
    const rule = parseRule(pattern, options, anyCase);
    if (rule) rules.push({ ...rule, words, order: rules.length });
  };
  if (options.defaults)
    for (const { pattern, why } of defaultExcludes[options.platform]) add(pattern, `default rule ${pattern} (${why})`);
  for (const pattern of options.patterns) add(pattern, `rule ${pattern}`);

  // Most rules are literals: one look-up each instead of a test per rule and file.
  const names = new Map<string, Rule[]>();
  const paths = new Map<string, Rule[]>();
  for (const rule of rules) {
    if (rule.literal === null) continue;
    const table = rule.onName ? names : paths;
    table.set(fold(rule.literal), [...(table.get(fold(rule.literal)) ?? []), rule]);
  }
  const globs = rules.filter((rule) => rule.literal === null).reverse();

  return {
    cacheTags: options.cacheTags ?? false,
    match(path: Buffer, kind: FileKind): string | null {
      const text = fold(path.toString('utf8'));
      const name = text.slice(text.lastIndexOf('/') + 1);
      let last: Rule | undefined;
      for (const rule of [...(names.get(name) ?? []), ...(paths.get(text) ?? [])]) {
        if (applies(rule, kind) && rule.order > (last?.order ?? -1)) last = rule;
      }
      for (const rule of globs) {
        if (last && rule.order < last.order) break;
        if (applies(rule, kind) && rule.test(rule.onName ? name : text)) {
          last = rule;
          break;
        }
      }
      return last && !last.keep ? last.words : null;
    },
  };
}

/**
 * Why a backup of `root` leaves a path out: the outermost folder on the way to it, or the path itself, that a rule
 * matches. Null when none does. The root itself is backed up whatever the rules say.
 */
export function excludedBy(
  excludes: Excludes,
  file: { root: Buffer; path: Buffer; kind: FileKind },
): { path: Buffer; rule: string } | null {
  const names = splitPath(file.path);
  for (let depth = splitPath(file.root).length + 1; depth <= names.length; depth++) {
    const path = joinPath(names.slice(0, depth));
    const rule = excludes.match(path, depth === names.length ? file.kind : 'directory');
    if (rule) return { path, rule };
  }
  return null;
}

function applies(rule: Rule, kind: FileKind): boolean {
  return !rule.foldersOnly || kind === 'directory';
}

function parseRule(line: string, options: ExcludeOptions, anyCase: boolean): Omit<Rule, 'words' | 'order'> | null {
  let pattern = line.trim();
  if (pattern === '' || pattern.startsWith('#')) return null;
  if (pattern.length > patternLengthMax)
    throw new Error(`the exclude rule ${pattern.slice(0, 64)}... is longer than ${patternLengthMax} characters`);
  const fault = wildcardFault(pattern, options.platform === 'win32' ? 'separates' : 'quotes');
  if (fault !== null) throw new Error(`the exclude rule ${line} ${fault}`);
  const keep = pattern.startsWith('!');
  if (keep) pattern = pattern.slice(1);
  if (options.platform === 'win32') pattern = windowsPattern(pattern);
  const foldersOnly = pattern.length > 1 && pattern.endsWith('/');
  if (foldersOnly) pattern = pattern.replace(/\/+$/, '');
  if (pattern === '' || pattern === '/') throw new Error(`the exclude rule ${line} names nothing`);

  if (pattern === '~' || pattern.startsWith('~/')) {
    if (!options.home) return null;
    pattern = escapeGlob(options.home.toString('utf8')) + pattern.slice(1);
  }
  const onName = !pattern.includes('/');
  if (!onName && !pattern.startsWith('/') && !pattern.startsWith('**/')) pattern = `**/${pattern}`;

  const literal = literalOf(pattern);
  if (literal !== null) return { keep, foldersOnly, onName, literal, test: (text) => text === literal };
  const glob = quoteRest(anyCase ? pattern.toLowerCase() : pattern);
  const expression = expressionOf(glob, { line, anyCase });
  return { keep, foldersOnly, onName, literal: null, test: (text) => expression.test(text) };
}

/** Without `strictBrackets` and `debug`, picomatch makes of '{a,b' and '[z-a]' a test that nothing ever passes, and says nothing. */
function expressionOf(glob: string, { line, anyCase }: { line: string; anyCase: boolean }): RegExp {
  const options = {
    dot: true,
    nocase: anyCase,
    nonegate: true,
    strictSlashes: true,
    strictBrackets: true,
    debug: true,
  };
  try {
    const expression = picomatch.makeRe(glob, options);
    if (expression) return expression;
  } catch (cause) {
    throw new Error(`the exclude rule ${line} cannot be understood: ${(cause as Error).message}`, { cause });
  }
  throw new Error(`the exclude rule ${line} cannot be understood`);
}

/** 'C:\Temp\*' and '\\server\share\x' as archive paths; on Windows the backslash separates and cannot quote. */
function windowsPattern(pattern: string): string {
  const slashes = pattern.replaceAll('\\', '/');
  if (slashes.startsWith('//')) return `/UNC/${slashes.slice(2)}`;
  return /^[A-Za-z*?]:\//.test(slashes) ? `/${slashes}` : slashes;
}

/** The text a pattern without wildcards stands for; null when it has some. */
function literalOf(pattern: string): string | null {
  if (/[*?[\]{}]/.test(pattern.replace(/\\./g, ''))) return null;
  return pattern.replace(/\\(.)/g, '$1');
}

/** Only what .gitignore knows, and braces, is special: 'Program Files (x86)' is not a group. */
function quoteRest(pattern: string): string {
  return pattern.replace(/\\.|\[!|[()|+@!$^"]/g, (found) =>
    found === '[!' ? '[^' : found.length > 1 ? found : `\\${found}`,
  );
}

function escapeGlob(text: string): string {
  return text.replace(/[\\*?[\]{}()!+@|$^.]/g, '\\$&');
}
