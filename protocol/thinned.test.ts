import { expect, test } from '@jest/globals';
import type { StoredVersion } from './messages.ts';
import { isThinned, ThinnedPlaces } from './thinned.ts';

const version = (path: string) => ({ path: Buffer.from(path) }) as StoredVersion;
const thinned = (path: string) => ({
  path: Buffer.from(path.replace(/\/$/, '')),
  next: null,
  folder: path.endsWith('/'),
});

/** Pages of paths: `-` before what was thinned out, `/` behind a folder. @returns `+`: a folder that comes all the same */
function told(...pages: string[][]): string[] {
  const places = new ThinnedPlaces();
  const all = pages.flatMap((page) => {
    const gone = page.filter((path) => path.startsWith('-')).map((path) => thinned(path.slice(1)));
    return places.page(
      page.filter((path) => !path.startsWith('-')).map((path) => version(path)),
      gone,
    );
  });
  return [...all, ...places.end()].map((each) =>
    isThinned(each) ? `${each.comes ? '+' : '-'}${each.path}` : `${each.path}`,
  );
}

test('each is told in its place of the archive, within a page and over pages', () => {
  expect(told(['/a', '/a/b', '/a.b', '/z', '-/a/a', '-/a/c', '-/b'])).toEqual([
    ...['/a', '-/a/a', '/a/b', '-/a/c', '/a.b', '-/b', '/z'],
  ]);
  expect(told(['-/a'], ['/b', '-/c'], ['-/d'], [])).toEqual(['-/a', '/b', '-/c', '-/d']);
});

test('of what has become a folder: one of which something comes comes, else it is told behind what lay in it', () => {
  expect(told(['-/x/', '-/y/', '/y/a'])).toEqual(['-/x', '+/y', '/y/a']);
  expect(told(['-/x/'], ['-/x/a'], ['/xa'])).toEqual(['-/x/a', '-/x', '/xa']);
  expect(told(['-/x/', '-/x/y/', '-/x/y/a'], ['/x/z'])).toEqual(['-/x/y/a', '-/x/y', '+/x', '/x/z']);
  expect(told(['-/x/', '-/x/y/'], ['/x/y/z'], ['-/x/y/zz/'])).toEqual(['+/x', '+/x/y', '/x/y/z', '-/x/y/zz']);
  expect(told(['-/x/', '-/x/y/'])).toEqual(['-/x/y', '-/x']);
});
