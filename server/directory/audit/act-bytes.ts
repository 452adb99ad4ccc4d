/**
 * What is hashed of an act, and how hashes make a chain. The database computes the same when an act is written
 * (`act_bytes` in the migrations); this is how the log is verified without believing the database.
 *
 * The bytes: fifteen fields, each as its length in four bytes, big end first, and its UTF-8; one that is null is
 * ff ff ff ff and nothing more. In this order: "holdfast act 1", tenant, number, time in microseconds since 1970 UTC,
 * organization, party's kind, id and name, address, action, target's kind, id and name, result, details as JSON text.
 * Numbers are written in decimal. The hash is the SHA-256 over the hash of the act before (32 zero bytes for the first)
 * and these bytes.
 */
import { sha256 } from '../../../protocol/hashes.ts';

/** An act as it is stored; every field as text, so that nothing is lost on the way. */
export interface StoredAct {
  /** '0': the server's own log. */
  tenant: string;
  number: string;
  /** Microseconds since 1970 UTC. */
  at: string;
  organization: string | null;
  partyKind: string;
  partyId: string | null;
  partyName: string;
  address: string | null;
  action: string;
  targetKind: string | null;
  targetId: string | null;
  targetName: string | null;
  result: string;
  details: string;
}

/** The hash before the first act. */
export const noHash = Buffer.alloc(32);

export function actBytes(act: StoredAct): Buffer {
  const fields = [
    'holdfast act 1',
    act.tenant,
    act.number,
    act.at,
    act.organization,
    act.partyKind,
    act.partyId,
    act.partyName,
    act.address,
    act.action,
    act.targetKind,
    act.targetId,
    act.targetName,
    act.result,
    act.details,
  ];
  return Buffer.concat(fields.flatMap(field));
}

const absent = Buffer.from('ffffffff', 'hex');

function field(value: string | null): Buffer[] {
  if (value === null) return [absent];
  const text = Buffer.from(value, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.byteLength);
  return [length, text];
}

/** @param previous the hash of the act before, 32 bytes */
export function actHash(previous: Uint8Array, act: StoredAct): Buffer {
  return sha256(Buffer.concat([previous, actBytes(act)]));
}
