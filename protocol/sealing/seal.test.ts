import { randomBytes } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as second from '../vectors/second-implementation.ts';
import { deriveKeys } from './keys.ts';
import { padmeLength } from './padme.ts';
import { sealedBounds } from './payload.ts';
import { open, openAsync, type SealAs, type SealExpected, seal, sealAsync, sealOverheadBytes } from './seal.ts';
import { SealError } from './seal-error.ts';

const vaultKey = Buffer.alloc(32, 7);
const keys = deriveKeys(vaultKey);
const as: SealAs = { type: 'block', vault: 7, generation: 1 };

/** Incompressible and repetitive bytes, of sizes around every branch. */
const plainBytes = fc.oneof(
  fc.uint8Array({ maxLength: 600 }),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 200 }))
    .map(([unit, times]) => Buffer.concat(Array(times).fill(unit))),
);
const sealAs: fc.Arbitrary<SealAs> = fc.record({
  type: fc.constantFrom('block', 'attributes', 'manifest'),
  vault: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.maxSafeNat()),
  generation: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.nat({ max: 2 ** 32 - 1 })),
  padding: fc.boolean(),
});

function reasonOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof SealError) return error.reason;
    throw error;
  }
  return 'opened';
}

/** A block made by somebody who holds the key and keeps to no rule. */
function craft(parts: { compression: number; plainBytes: number; data: Uint8Array }): Buffer {
  return second.sealPayload(vaultKey, second.header({ type: 1, vault: 7, generation: 1 }), second.payload(parts));
}

describe('what is sealed opens again', () => {
  test('as the same bytes, on either thread, and with the second implementation', async () => {
    await fc.assert(
      fc.asyncProperty(plainBytes, sealAs, async (plain, how) => {
        const sealed = seal(keys, how, plain);
        expect((await sealAsync(keys, how, plain)).equals(sealed)).toBe(true);
        expect(open(keys, how, sealed).equals(plain)).toBe(true);
        expect((await openAsync(keys, how, sealed)).equals(plain)).toBe(true);
        const type = { block: 1, attributes: 2, manifest: 3 }[how.type];
        expect(second.openSealed(vaultKey, { ...how, type }, sealed).equals(plain)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('at the largest plain length, and is refused one byte past it', async () => {
    const { plainBytesMax } = sealedBounds.block;
    const largest = randomBytes(plainBytesMax + 1);
    const plain = largest.subarray(1);
    for (const padding of [false, true])
      expect(open(keys, as, seal(keys, { ...as, padding }, plain)).equals(plain)).toBe(true);
    expect(reasonOf(() => seal(keys, as, largest))).toBe('too_large');
    await expect(sealAsync(keys, as, largest)).rejects.toMatchObject({ reason: 'too_large' });
    const zeros = Buffer.alloc(plainBytesMax);
    expect(open(keys, as, seal(keys, as, zeros)).equals(zeros)).toBe(true);
  });

  test('compression shortens what it can and adds nothing to what it cannot', () => {
    expect(seal(keys, as, Buffer.alloc(100_000)).byteLength).toBeLessThan(200);
    expect(seal(keys, as, randomBytes(100_000)).byteLength).toBe(100_000 + sealOverheadBytes);
    expect(seal(keys, as, Buffer.alloc(20)).byteLength).toBe(20 + sealOverheadBytes);
  });

  test('sealed attributes keep to the bound of the wire format, at the edge and one past it', () => {
    const { sealedBytesMax } = sealedBounds.attributes;
    const attributes: SealAs = { ...as, type: 'attributes' };
    const past = randomBytes(sealedBytesMax - sealOverheadBytes + 1);
    expect(seal(keys, attributes, past.subarray(1)).byteLength).toBe(sealedBytesMax);
    expect(reasonOf(() => seal(keys, attributes, past))).toBe('too_large');
  });

  test('padded lengths are those of Padme', () => {
    for (const length of [0, 1, 10, 119, 1000, 65_530]) {
      const sealed = seal(keys, { ...as, padding: true }, randomBytes(length));
      expect(sealed.byteLength).toBe(64 + padmeLength(9 + length));
    }
  });

  test('a vault or generation outside its field is our mistake, not a SealError', () => {
    for (const wrong of [
      { vault: -1 },
      { vault: 1.5 },
      { vault: 2 ** 53 },
      { generation: -1 },
      { generation: 2 ** 32 },
      { generation: Number.NaN },
    ]) {
      expect(() => seal(keys, { ...as, ...wrong }, Buffer.alloc(1))).toThrow(RangeError);
    }
  });
});

describe('determinism', () => {
  test('equal bytes give an equal block; different bytes, headers or vault keys never share a key and nonce', () => {
    const blockOfKeyAndNonce = new Map<string, string>();
    const few = fc.oneof(
      fc.uint8Array({ maxLength: 3 }),
      fc.integer({ min: 120, max: 140 }).map((n) => Buffer.alloc(n)),
    );
    const vaultKeys = [vaultKey, Buffer.alloc(32, 8)];
    fc.assert(
      fc.property(fc.oneof(few, plainBytes), sealAs, fc.nat({ max: 1 }), (plain, how, which) => {
        const sealed = seal(deriveKeys(vaultKeys[which]!), how, plain);
        expect(seal(deriveKeys(vaultKeys[which]!), how, Buffer.from(plain)).equals(sealed)).toBe(true);
        const { key, nonce } = second.keyAndNonce(vaultKeys[which]!, sealed.subarray(16, 48));
        const pair = key.toString('hex') + nonce.toString('hex');
        const block = sealed.toString('latin1');
        expect(blockOfKeyAndNonce.get(pair) ?? block).toBe(block);
        blockOfKeyAndNonce.set(pair, block);
      }),
      { numRuns: 3000 },
    );
    expect(blockOfKeyAndNonce.size).toBeGreaterThan(1000);
    expect(new Set(blockOfKeyAndNonce.values()).size).toBe(blockOfKeyAndNonce.size);
  });

  test('the same bytes in another vault, under another generation, type or vault key share no ciphertext', () => {
    const plain = randomBytes(500);
    const ways = [
      as,
      { ...as, vault: 8 },
      { ...as, generation: 2 },
      { ...as, type: 'manifest' as const },
      { ...as, padding: true },
    ];
    const sealed = [...ways.map((how) => seal(keys, how, plain)), seal(deriveKeys(Buffer.alloc(32, 8)), as, plain)];
    for (const part of [16, 48, 64, 300])
      expect(new Set(sealed.map((block) => block.toString('hex', part, part + 16))).size).toBe(sealed.length);
  });
});

describe('what was changed does not open', () => {
  test('any flipped bit, any truncation, any extension', () => {
    fc.assert(
      fc.property(plainBytes, sealAs, fc.nat(), fc.integer({ min: 1, max: 40 }), (plain, how, place, count) => {
        const sealed = seal(keys, how, plain);
        const bit = place % (sealed.byteLength * 8);
        const flipped = Buffer.from(sealed);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        expect(reasonOf(() => open(keys, how, flipped))).not.toBe('opened');
        expect(reasonOf(() => open(keys, how, sealed.subarray(0, place % sealed.byteLength)))).not.toBe('opened');
        expect(reasonOf(() => open(keys, how, Buffer.concat([sealed, Buffer.alloc(count)])))).not.toBe('opened');
      }),
      { numRuns: 500 },
    );
  });

  test('every single bit of one block', () => {
    const sealed = seal(keys, as, Buffer.from('a short text'));
    for (let bit = 0; bit < sealed.byteLength * 8; bit++) {
      sealed[bit >> 3]! ^= 1 << (bit & 7);
      expect(reasonOf(() => open(keys, { type: 'block', vault: 7 }, sealed))).not.toBe('opened');
      sealed[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(reasonOf(() => open(keys, as, sealed))).toBe('opened');
  });

  test('type, vault or generation other than expected, also when the header is rewritten to match', () => {
    fc.assert(
      fc.property(plainBytes, sealAs, sealAs, (plain, how, other) => {
        const sealed = seal(keys, how, plain);
        const differs = how.type !== other.type || how.vault !== other.vault || how.generation !== other.generation;
        expect(reasonOf(() => open(keys, other as SealExpected, sealed)) === 'opened').toBe(!differs);
        if (!differs) return;
        const rewritten = Buffer.concat([seal(keys, other, Buffer.alloc(0)).subarray(0, 16), sealed.subarray(16)]);
        expect(reasonOf(() => open(keys, other, rewritten))).toBe('not_authentic');
      }),
    );
  });

  test('with the key of another vault', () => {
    fc.assert(
      fc.property(plainBytes, fc.uint8Array({ minLength: 32, maxLength: 32 }), (plain, other) => {
        fc.pre(!vaultKey.equals(other));
        expect(reasonOf(() => open(deriveKeys(other), as, seal(keys, as, plain)))).toBe('not_authentic');
      }),
    );
  });

  test('arbitrary bytes, bare or behind a true header, end in a SealError and nothing else', async () => {
    const header = seal(keys, as, Buffer.alloc(0)).subarray(0, 16);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (bytes, withHeader) => {
        const sealed = withHeader ? Buffer.concat([header, bytes]) : bytes;
        expect(reasonOf(() => open(keys, as, sealed))).not.toBe('opened');
        await expect(openAsync(keys, as, sealed)).rejects.toBeInstanceOf(SealError);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('authentic and hostile', () => {
  test('arbitrary payloads, and damaged zstd frames of the right length, open to the length they claim or end in a SealError', async () => {
    const length = fc.oneof(fc.nat({ max: 6000 }), fc.nat({ max: 2 ** 32 - 1 }));
    const arbitrary = fc.tuple(fc.uint8Array({ maxLength: 100 }), length);
    const frame = fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.integer({ min: 2, max: 20 }))
      .map(([unit, times]) => Buffer.concat(Array(times).fill(unit)))
      .map((plain) => [zstdCompressSync(plain, { pledgedSrcSize: plain.byteLength }), plain.byteLength] as const);
    const damaged = fc.tuple(frame, fc.nat(), fc.nat({ max: 255 })).map(([[intact, plainLength], at, value]) => {
      const bytes = Buffer.from(intact);
      bytes[9 + (at % Math.max(1, bytes.byteLength - 9))] = value; // behind the header, which is checked before
      return [bytes, plainLength] as const;
    });
    const reasons = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(arbitrary, frame, damaged),
        fc.nat({ max: 2 }),
        async ([data, plainLength], compression) => {
          const sealed = craft({ compression, plainBytes: plainLength, data });
          let plain: Buffer | null = null;
          const reason = reasonOf(() => {
            plain = open(keys, as, sealed);
          });
          const later = await openAsync(keys, as, sealed).catch((error: unknown) => error);
          reasons.add(reason);
          if (reason === 'opened') {
            expect(plain!.byteLength).toBe(plainLength);
            expect(plain!.equals(later as Buffer)).toBe(true);
          } else {
            expect(['bad_payload', 'too_large']).toContain(reason);
            expect(later).toBeInstanceOf(SealError);
          }
        },
      ),
      { numRuns: 1500 },
    );
    expect([...reasons].sort()).toEqual(['bad_payload', 'opened', 'too_large']);
  });

  // 64 MiB of zeros in about 6 KB. The data after the frame's header is cut off in some cases: were it given to the
  // decompressor, the error would be about the data, not about the lengths.
  const bomb = zstdCompressSync(Buffer.alloc(64 << 20), { pledgedSrcSize: 64 << 20 });
  const messageOf = (sealed: Buffer): string => {
    try {
      open(keys, as, sealed);
      return 'opened';
    } catch (error) {
      return (error as Error).message;
    }
  };

  test('a zip bomb that tells the truth is beyond the bound, and is not inflated', () => {
    expect(messageOf(craft({ compression: 1, plainBytes: 64 << 20, data: bomb }))).toMatch(
      /^the payload claims 67108864 plain bytes; at most/,
    );
    expect(messageOf(craft({ compression: 1, plainBytes: 64 << 20, data: bomb.subarray(0, 12) }))).toMatch(
      /^the payload claims 67108864/,
    );
  });

  test('a zip bomb that claims a small plain length is refused by the header of its frame', () => {
    for (const data of [bomb, bomb.subarray(0, 12)]) {
      expect(messageOf(craft({ compression: 1, plainBytes: 10_000, data }))).toBe(
        'the zstd frame promises 67108864 bytes, the payload 10000',
      );
    }
  });

  test('a frame that promises no size is refused, and one that lies in its header stops at the plain length', () => {
    const sized = zstdCompressSync(Buffer.alloc(1_000_000), { pledgedSrcSize: 1_000_000 });
    expect(sized[4]! >> 6).toBe(2); // a content size of 4 bytes, at the end of the frame's header
    const at = 5 + ((sized[4]! & 0x20) === 0 ? 1 : 0);
    expect(sized.readUInt32LE(at)).toBe(1_000_000);
    const lying = Buffer.from(sized);
    lying.writeUInt32LE(100_000, at);
    expect(messageOf(craft({ compression: 1, plainBytes: 100_000, data: lying }))).toMatch(
      /^the data does not inflate/,
    );
    const unsized = Buffer.concat([sized.subarray(0, 4), Buffer.of(0), Buffer.of(0x58), sized.subarray(at + 4)]);
    expect(messageOf(craft({ compression: 1, plainBytes: 1_000_000, data: unsized }))).toMatch(
      /^the zstd frame promises no number of bytes/,
    );
  });
});
