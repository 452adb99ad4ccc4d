/**
 * How a staged archive lies in the bucket: cut into frames of 64 KiB, each sealed by itself with AES-256-GCM, so that any
 * range is read by opening whole frames, and gathered into parts, which are the objects. What must stay true: a key is drawn
 * anew for each try and seals each frame number once, so no nonce is used twice; what opens was sealed for this try and this
 * place, so neither frames nor parts can be exchanged, also between tries.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { uuidOf } from '../../uuid.ts';

/** Plain bytes of a frame; the last of an archive has fewer. */
export const frameBytes = 64 * 1024;
const tagBytes = 16;
/** What a whole frame takes in the bucket. */
export const sealedFrameBytes = frameBytes + tagBytes;
/** 128 frames are 8 MiB: a hundredth of a second of a fast network, and 1,280 objects for 10 GiB. */
export const partFramesDefault = 128;
export const stagingKeyBytes = 32;

/** One try of one restore: what its objects are called, and what opens them. */
export interface StagedPlace {
  catalogId: string;
  restore: number;
  /** A UUID. */
  attempt: string;
}

/** A frame does not open: its bytes are not what was stored. */
export class StagedDamaged extends Error {
  override name = 'StagedDamaged';
}

/** Below it lies what is staged, and nothing else. No key is used twice: an attempt is drawn at random. */
export const stagingPrefix = (catalogId: string): string => `${catalogId}/staging/`;

/** Of one try. */
export const attemptPrefix = ({ catalogId, restore, attempt }: StagedPlace): string =>
  `${stagingPrefix(catalogId)}${restore}.${attempt.replaceAll('-', '')}/`;

export const partKey = (place: StagedPlace, part: number): string =>
  `${attemptPrefix(place)}${String(part).padStart(8, '0')}`;

/** The attempt that an object is of, as a UUID; null: its key is none of ours. */
export function attemptOfKey(catalogId: string, key: string): string | null {
  const prefix = stagingPrefix(catalogId);
  const hex = key.startsWith(prefix)
    ? /^[1-9]\d{0,15}\.([0-9a-f]{32})\/\d{8}$/.exec(key.slice(prefix.length))?.[1]
    : undefined;
  return hex === undefined ? null : uuidOf(hex);
}

/** What an archive of `length` bytes takes in the bucket. */
export const storedBytesOf = (length: number): number => length + Math.ceil(length / frameBytes) * tagBytes;

export class FrameCipher {
  readonly #key: Buffer;
  readonly #attempt: Buffer;

  /** @param secret `stagingKeyBytes` drawn for this attempt */
  constructor(secret: Uint8Array, attempt: string) {
    this.#key = Buffer.from(hkdfSync('sha256', secret, '', 'holdfast staged frames', 32));
    this.#attempt = Buffer.from(attempt.replaceAll('-', ''), 'hex');
  }

  /** @returns the pieces of the sealed frame */
  sealFrame(number: number, plain: Uint8Array): Buffer[] {
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(number)).setAAD(this.#about(number));
    return [cipher.update(plain), cipher.final(), cipher.getAuthTag()].filter((piece) => piece.byteLength > 0);
  }

  /** @throws StagedDamaged */
  openFrame(number: number, sealed: Uint8Array): Buffer {
    const end = sealed.byteLength - tagBytes;
    if (end <= 0) throw new StagedDamaged(`frame ${number} is too short`);
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonceOf(number), { authTagLength: tagBytes });
    decipher.setAAD(this.#about(number)).setAuthTag(sealed.subarray(end));
    const plain = decipher.update(sealed.subarray(0, end));
    try {
      decipher.final();
    } catch (cause) {
      throw new StagedDamaged(`frame ${number} does not open`, { cause });
    }
    return plain;
  }

  #about(number: number): Buffer {
    return Buffer.concat([this.#attempt, nonceOf(number)]);
  }
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(number), 4);
  return nonce;
}
