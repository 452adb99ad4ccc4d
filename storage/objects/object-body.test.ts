import { expect, test } from '@jest/globals';
import { bodyPieces, pieceGroups, releasingStream, untilAborted } from './object-body.ts';
import { ObjectLengthMismatch } from './object-store.ts';

async function* pieces(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

test('the last piece of a streamed body is held back until the length is known to be right', async () => {
  for (const length of [3, 5]) {
    const seen: string[] = [];
    const reading = async () => {
      for await (const piece of bodyPieces('key', { length, stream: () => pieces('ab', '', 'cd') }))
        seen.push(text(piece));
    };
    await expect(reading()).rejects.toThrow(ObjectLengthMismatch);
    expect(seen.join('').length).toBeLessThan(length);
  }
});

test('groups have exactly the size asked for, except the last', async () => {
  const groups = await Array.fromAsync(pieceGroups(pieces('a', 'bcdefgh', 'i', 'jk', 'l'), 3));
  expect(groups.map((group) => group.map(text))).toEqual([['a', 'bc'], ['def'], ['gh', 'i'], ['jk', 'l']]);
  expect(await Array.fromAsync(pieceGroups(pieces(), 3))).toEqual([]);
});

test('an abort ends a source that is silent, and the source is told', async () => {
  const stop = new AbortController();
  let told = false;
  const silent: AsyncIterable<number> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise(() => {}),
      return: async () => {
        told = true;
        return { done: true, value: undefined };
      },
    }),
  };
  const reading = Array.fromAsync(untilAborted(silent, stop.signal));
  stop.abort(new Error('enough'));
  await expect(reading).rejects.toThrow('enough');
  expect(told).toBe(true);
});

test('a stream is released once: at its end, when it fails, or when it is given up before its beginning', async () => {
  let released = 0;
  const release = () => {
    released++;
  };
  const whole = releasingStream(pieces('a', 'b'), release);
  expect((await Array.fromAsync(whole)).map(text)).toEqual(['a', 'b']);
  await whole.return?.();
  expect(released).toBe(1);

  const never = releasingStream(pieces('a'), release);
  await never.return?.();
  expect(await never.next()).toEqual({ done: true, value: undefined });
  expect(released).toBe(2);

  const failing = releasingStream(
    (async function* () {
      yield Buffer.from('a');
      throw new Error('broke');
    })(),
    release,
  );
  await expect(Array.fromAsync(failing)).rejects.toThrow('broke');
  expect(released).toBe(3);
});
