/**
 * An act: one line of the audit log. Who did what, to whom, when, from where, and how it ended. Never in it: passwords,
 * tokens, keys, contents of files.
 */

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

/** Whoever acts. A name is kept beside the id, because people and clients are renamed and the log is not. */
export interface ActingParty {
  kind: 'user' | 'client' | 'device' | 'operator' | 'server';
  /** Null for the server itself. A GUID for a device. */
  id: number | string | null;
  name: string;
}

/** On whose behalf a verb works: its first argument after the transaction. */
export interface By {
  /** Whose log it goes into. Null: the server's own, for what is no tenant's. */
  tenant: number | null;
  party: ActingParty;
  /** IP address; null: from inside the server. */
  address: string | null;
}

export type TargetKind =
  | 'tenant'
  | 'organization'
  | 'user'
  | 'device'
  | 'archive'
  | 'client'
  | 'session'
  | 'plan'
  | 'key'
  | 'provider'
  | 'alert'
  | 'route'
  | 'log';

export interface ActTarget {
  kind: TargetKind;
  id: number | string;
  /** As it is called after the act; null where it has no name. */
  name: string | null;
}

export type ActResult = 'done' | 'refused' | 'failed';

export interface Act {
  /** As `user.create`: what was done, or would have been. Lower case, at most 64 characters. */
  action: string;
  target: ActTarget | null;
  /** Where it happened, for whoever may see the log of a part of the tree only; null: the tenant itself. */
  organization: number | null;
  result: ActResult;
  /** What changed, from what to what; why it was refused. Small: at most 16 KiB as JSON. */
  details: Readonly<Record<string, JsonValue>>;
}

/** The server's own log, among those of tenants. */
export const serverLog = 0;
