/** What reports look like in the JSON API, for its document. The interfaces beside their code say the same to the compiler. */
import { z } from 'zod';
import { PolicyDocument } from '../directory/retention-document.ts';

const id = z.int();
const moment = z.iso.datetime().nullable();
const device = z.strictObject({ guid: z.string(), name: z.string() });
const person = z.strictObject({ id, name: z.string() });
const path = {
  path: z.string(),
  pathBytes: z.string().optional().meta({ description: 'base64url; only where `path` is not the whole truth' }),
};

export const AlertView = z.strictObject({
  vault: id.meta({ description: 'Together with `alert` its name. 0: about the whole server' }),
  alert: id,
  kind: z.string(),
  says: z.string(),
  toDo: z.string().meta({ description: 'What reviewing it does, and what to do before' }),
  user: person.nullable(),
  device: device.nullable().meta({ description: 'Null: it is about all that the user has' }),
  details: z.record(z.string(), z.unknown()),
  raisedAt: moment,
  latestAt: moment,
  count: z.int().meta({ description: 'How often it was found' }),
  reviewedAt: moment,
  reviewedBy: z.string().nullable(),
});

export const AlertList = z.strictObject({
  alerts: z.array(AlertView),
  more: z.boolean().meta({ description: 'There are older ones' }),
});

export const ReviewedAlertView = z.strictObject({ vault: id, alert: id, kind: z.string(), reviewedBy: z.string() });

const usage = {
  logicalBytes: z.int().meta({ description: 'What the files have that can be restored' }),
  storedBytes: z.int().meta({ description: 'What is stored, sealed' }),
};

export const UsageLine = z.union([
  z.looseObject({
    user: z.strictObject({ id, name: z.string(), state: z.string() }),
    organization: id,
    vault: id.nullable(),
    devices: z.array(device),
    ...usage,
  }),
  z.looseObject({
    organization: z.strictObject({ id, name: z.string(), parent: id.nullable() }),
    users: z.int(),
    own: z.looseObject(usage),
    total: z.looseObject(usage).meta({ description: 'With all organizations below it' }),
  }),
  z.strictObject({ summary: z.looseObject({ users: z.int(), ...usage }) }),
]);

const coverage = {
  verifiedObjects: z.int(),
  verifiedBytes: z.int(),
  neverVerifiedObjects: z.int(),
  neverVerifiedBytes: z.int(),
  coverage: z.number().nullable().meta({ description: '0 to 1, of the bytes; null: nothing is stored' }),
  oldestVerifiedAt: moment,
};

export const CoverageLine = z.union([
  z.strictObject({ user: person, vault: id, devices: z.array(device), ...coverage }),
  z.strictObject({ summary: z.strictObject({ vaults: z.int(), ...coverage }) }),
]);

export const DamageView = z.strictObject({
  blocks: z.int().meta({ description: "Of all of the user's devices together: damaged blocks" }),
  notLookedUp: z.int(),
  oldestFoundAt: moment,
  files: z.array(
    z.strictObject({
      ...path,
      file: id,
      latestDamaged: z.boolean(),
      moments: z.array(
        z.strictObject({ seq: z.int(), committedAt: moment, deleted: z.boolean(), damaged: z.boolean() }),
      ),
    }),
  ),
  next: z.int().nullable().meta({ description: '`after` of the next page; null: there is none' }),
});

export const PlanLineView = z.union([
  z.strictObject({
    ...path,
    seq: z.int(),
    committedAt: moment,
    deleted: z.boolean(),
    size: z.int(),
    keep: z.boolean(),
    reason: z.looseObject({ rule: z.string() }),
    because: z.string(),
    by: z.string().meta({ description: "Whose policy gives the reason: the archive's own, or that of a backup plan" }),
    policies: z
      .array(z.string())
      .meta({ description: 'Whose policies hold for the file: what any of them keeps stays' }),
  }),
  z.strictObject({
    summary: z
      .strictObject({
        files: z.int(),
        keep: z.int(),
        expire: z.int(),
        expireBytes: z.int(),
        cap: z.int(),
        overCap: z.boolean(),
        frozen: z.boolean(),
        policy: PolicyDocument,
        plans: z
          .array(z.strictObject({ name: z.string(), policy: PolicyDocument }))
          .meta({ description: 'Backup plans with a policy for what lies in their folders' }),
      })
      .nullable(),
    unreadable: z.string().optional(),
  }),
]);

export const FenceView = z.strictObject({
  catalogId: z.string(),
  mayDelete: z.boolean(),
  stoppedBecause: z.array(z.string()),
  renewedAt: moment,
  secondsSinceRenewal: z.int().nullable(),
  bucketModifiedAt: moment,
  mark: z.string().nullable(),
});
