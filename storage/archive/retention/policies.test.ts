import { describe, expect, test } from '@jest/globals';
import { type ArchivePolicies, type FolderPolicy, onlyPolicy, planDigest, policiesByPath } from './policies.ts';
import { defaultRetention } from './retention.ts';

const policy = { ...defaultRetention, keepNewest: 7 };
const folder = (name: string, paths: string[], anyCase = false): FolderPolicy => ({
  name,
  policy,
  folders: paths.map((path) => ({ path: Buffer.from(path), anyCase })),
});
const policies = (...folders: FolderPolicy[]): ArchivePolicies => ({ ...onlyPolicy(defaultRetention, 'own'), folders });
const namesOf = (of: ArchivePolicies, path: string | Buffer | null): string[] =>
  policiesByPath(of)(typeof path === 'string' ? Buffer.from(path) : path).map(({ name }) => name);

describe('the policies of a file', () => {
  test('without folders is that of the archive', () => {
    expect(policiesByPath(onlyPolicy(policy, 'own'))(Buffer.from('/a'))).toEqual([{ name: 'own', policy }]);
    expect(namesOf(onlyPolicy(policy, 'own'), null)).toEqual(['own']);
  });

  test.each<[path: string, names: string[]]>([
    ['/data', ['data']],
    ['/data/a/b', ['data']],
    ['/database', ['own']],
    ['/database/a', ['own']],
    ['/dat', ['own']],
    ['/', ['own']],
    ['/a/data', ['own']],
    ['/data/mail/inbox', ['data', 'mail']],
    ['/var/mail', ['mail']],
    ['/DATA/a', ['own', 'data']],
    ['/data/MAIL/a', ['data', 'mail']],
    ['/data/mail2', ['data']],
  ])('%s: %j', (path, names) => {
    const of = policies(folder('data', ['/data']), folder('mail', ['/data/mail', '/var/mail']));
    expect(namesOf(of, path)).toEqual(names);
  });

  test.each<[path: string, names: string[]]>([
    ['/C:/Users/ann/x', ['users']],
    ['/C:/USERS/ann', ['users']],
    ['/C:/Users2', ['own']],
    ['/D:/Users', ['own']],
    ['/UNC/Server/share/x', ['share']],
    ['/UNC/server/share2', ['own']],
  ])('of Windows whatever its letters: %s: %j', (path, names) => {
    const of = policies(folder('users', ['/C:/users'], true), folder('share', ['/UNC/server/Share'], true));
    expect(namesOf(of, path)).toEqual(names);
  });

  test('of the root is for everything, and on a drive or a share beside what it has without', () => {
    const of = policies(folder('all', ['/']), folder('users', ['/C:/Users'], true));
    expect(namesOf(of, '/')).toEqual(['all']);
    expect(namesOf(of, '/home')).toEqual(['all']);
    expect(namesOf(of, '/D:/x')).toEqual(['own', 'all']);
    expect(namesOf(of, '/UNC/server/share')).toEqual(['own', 'all']);
    expect(namesOf(of, '/C:/Users/x')).toEqual(['all', 'users']);
  });

  // On Linux and Windows they are two folders, and on a Mac one: nothing goes that either policy keeps.
  test.each<[folder: string, path: string, anyCase: boolean, names: string[]]>([
    ['/m\u00fcller', '/m\u00fcller', false, ['m']],
    ['/m\u00fcller', '/m\u00fcller/x', false, ['m']],
    ['/mu\u0308ller', '/mu\u0308ller/x', false, ['m']],
    ['/m\u00fcller', '/mu\u0308ller', false, ['own', 'm']],
    ['/m\u00fcller', '/mu\u0308ller/x', false, ['own', 'm']],
    ['/mu\u0308ller', '/m\u00fcller', false, ['own', 'm']],
    ['/mu\u0308ller', '/m\u00fcller/x', false, ['own', 'm']],
    ['/m\u00fcller', '/M\u00dcLLER', false, ['own', 'm']],
    ['/\u212b', '/\u00c5/x', false, ['own', 'm']], // the sign for angstrom, which composing makes a letter
    ['/C:/m\u00fcller', '/C:/M\u00dcLLER/x', true, ['m']],
    ['/C:/m\u00fcller', '/C:/Mu\u0308ller/x', true, ['own', 'm']],
    ['/C:/mu\u0308ller', '/C:/m\u00fcller', true, ['own', 'm']],
    ['/m\u00fcller', '/muller/x', false, ['own']],
  ])('of %s, at %s, in any case: %s: %j', (path, at, anyCase, names) => {
    expect(namesOf(policies(folder('m', [path], anyCase)), at)).toEqual(names);
  });

  test('is found below a folder whatever its bytes are', () => {
    const of = policies(folder('m', ['/m\u00fcller']), folder('c', ['/C:/Users'], true));
    const bytes = (...parts: (string | number)[]): Buffer =>
      Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.of(part))));
    expect(namesOf(of, bytes('/m\u00fcller/', 0xff, '/x'))).toEqual(['m']);
    expect(namesOf(of, bytes('/mu\u0308ller/', 0xff, '/x'))).toEqual(['own', 'm']);
    expect(namesOf(of, bytes('/C:/USERS/', 0xff, '/x'))).toEqual(['c']);
    expect(namesOf(of, bytes('/m', 0xfc, 'ller/x'))).toEqual(['own']);
    // The replacement character that invalid bytes are shown as is another name.
    expect(namesOf(policies(folder('r', ['/\ufffd'])), bytes('/', 0xff))).toEqual(['own']);
  });

  test('whose path is not known are all', () => {
    expect(namesOf(policies(folder('a', ['/a']), folder('b', ['/b'])), null)).toEqual(['own', 'a', 'b']);
  });
});

describe('the digest of what plans rest on', () => {
  const [a, b] = [folder('a', ['/a', '/b']), folder('c', ['/c'])];
  const digest = (...folders: FolderPolicy[]): string => planDigest(policies(...folders), []).toString('hex');

  test('is the same whatever the order and the names', () => {
    expect(digest(b, { ...a, name: 'x', folders: a.folders.toReversed() })).toBe(digest(a, b));
    expect(planDigest(onlyPolicy(defaultRetention, 'x'), [])).toEqual(planDigest(policies(), []));
  });

  test('is another one when anything else is', () => {
    const others = [
      digest(),
      digest(a),
      digest(a, b),
      digest(folder('a', ['/a']), folder('b', ['/b'])),
      digest(folder('a', ['/a', '/b'], true)),
      digest({ ...a, policy: { ...policy, keepNewest: 8 } }),
      planDigest(policies(a), [{}]).toString('hex'),
      planDigest({ ...policies(a), policy }, []).toString('hex'),
    ];
    expect(new Set(others).size).toBe(others.length);
  });
});
