import { expect, test } from '@jest/globals';
import { ownTimes } from './cpu-profile.ts';

const node = (id: number, functionName: string, url = '', lineNumber = -1) => ({
  id,
  callFrame: { functionName, url, lineNumber },
});

test('own times are summed by function, over profiles, without idle time', () => {
  const profile = {
    nodes: [
      node(1, '(idle)'),
      node(2, '(garbage collector)'),
      node(3, 'uploadBlocks', 'file:///somewhere/else/storage/archive/writing/upload.ts', 35),
      node(4, 'query', 'file:///somewhere/node_modules/pg/lib/client.js', 9),
      node(5, 'uploadBlocks', 'file:///somewhere/else/storage/archive/writing/upload.ts', 35), // called from elsewhere
    ],
    samples: [1, 2, 3, 4, 5, 3],
    timeDeltas: [900_000, 1_000, 2_000, 3_000, 4_000, -7],
  };
  expect(ownTimes([profile, profile])).toEqual([
    { name: 'uploadBlocks storage/archive/writing/upload.ts:36', ms: 12, share: 0.6 },
    { name: 'query pg/lib/client.js:10', ms: 6, share: 0.3 },
    { name: '(garbage collector)', ms: 2, share: 0.1 },
  ]);
});
