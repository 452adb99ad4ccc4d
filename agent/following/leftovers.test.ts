/** Tidying up where a disk does not answer: it takes its time and one thread, and no more. */
import { expect, test } from '@jest/globals';
import { Tidier } from './leftovers.ts';

const [dead, fine] = [Buffer.from('/dead'), Buffer.from('/fine')];

test('a folder that never answers has its time, and no other is begun until it does', async () => {
  const { promise: disk, resolve: diskIsBack } = Promise.withResolvers<void>();
  const begun: string[] = [];
  const clear = async (folder: Buffer): Promise<void> => {
    begun.push(String(folder));
    if (folder === dead) await disk;
  };
  const tidier = new Tidier({ timeMs: 20, clear });
  const all = await Promise.allSettled([fine, dead, dead, fine].map((folder) => tidier.clear(folder)));
  expect(all).toMatchObject([
    { status: 'fulfilled' },
    { status: 'rejected', reason: { message: expect.stringContaining('/dead: it takes too long') } },
    { status: 'rejected', reason: { message: '/dead does not answer yet' } },
    { status: 'rejected', reason: { message: '/dead does not answer yet' } },
  ]);
  expect(begun).toEqual(['/fine', '/dead']);
  diskIsBack();
  await new Promise(setImmediate);
  await tidier.clear(fine);
  expect(begun).toHaveLength(3);
});

test('one that fails says so, and lets the next one have its turn', async () => {
  const clear = async (folder: Buffer): Promise<void> => {
    if (folder === dead) throw new Error('broken');
  };
  const tidier = new Tidier({ clear });
  await expect(tidier.clear(dead)).rejects.toThrow('broken');
  await tidier.clear(fine);
});
