import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import {
  canonicalRequest,
  type KmsServer,
  type Mishap,
  signatureOf,
  startKmsServer,
} from '../../../tests/helpers/kms-server.ts';
import { KeyServiceError } from './key-service.ts';
import { type KmsBounds, kmsBounds, kmsKeyService } from './kms-keys.ts';
import { sealingKeyOf } from './records.ts';

const secret = randomBytes(32);
const context = 'holdfast vault key, user 1, generation 1';
const quick: KmsBounds = { ...kmsBounds, attemptTimeoutMs: 300 };
const ourVariables = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_PROFILE', 'AWS_REGION'];
const outside = Object.fromEntries(ourVariables.map((name) => [name, process.env[name]]));

let kms: KmsServer;

beforeAll(() => {
  for (const name of ourVariables) delete process.env[name];
});
afterAll(() => {
  for (const [name, value] of Object.entries(outside))
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
});
beforeEach(async () => {
  kms = await startKmsServer();
  process.env.AWS_ACCESS_KEY_ID = kms.credential.accessKeyId;
  process.env.AWS_SECRET_ACCESS_KEY = kms.credential.secretAccessKey;
});
afterEach(() => kms?.close());

const service = (keyIds: readonly string[], bounds = quick) =>
  kmsKeyService({ keyIds, endpoint: kms.endpoint, region: kms.region }, bounds);

/** How an asking failed; what is told to operators is looked at for anything of the key. */
async function failure(asked: Promise<unknown>): Promise<KeyServiceError> {
  const error = await asked.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(KeyServiceError);
  const told = `${(error as Error).stack} ${JSON.stringify(error)}`;
  for (const encoding of ['base64', 'hex'] as const) expect(told).not.toContain(secret.toString(encoding));
  expect((error as Error).cause).toBeUndefined();
  return error as KeyServiceError;
}

// The server that stands for KMS is only worth something if it would refuse a wrong signature.
describe("the test server's own Signature Version 4", () => {
  const secretAccessKey = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
  const form = 'application/x-www-form-urlencoded; charset=utf-8';

  // From the AWS General Reference: the worked example of signing (2011 and 2015 editions) and the test suite.
  test.each([
    [
      'the POST of "Signed request examples"',
      { method: 'POST', path: '/', body: 'Action=ListUsers&Version=2010-05-08' },
      { 'content-type': form, host: 'iam.amazonaws.com', 'x-amz-date': '20110909T233600Z' },
      'iam',
      'ced6826de92d2bdeed8f846f0bf508e8559e98e4b0199114b84c54174deb456c',
    ],
    [
      'the GET of "Create a signed request"',
      { method: 'GET', path: '/?Action=ListUsers&Version=2010-05-08', body: '' },
      { 'content-type': form, host: 'iam.amazonaws.com', 'x-amz-date': '20150830T123600Z' },
      'iam',
      '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    ],
    [
      'get-vanilla of the test suite',
      { method: 'GET', path: '/', body: '' },
      { host: 'example.amazonaws.com', 'x-amz-date': '20150830T123600Z' },
      'service',
      '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
    ],
  ])('%s', (_, { method, path, body }, headers, of, signature) => {
    const time = headers['x-amz-date'];
    const scope = `${time.slice(0, 8)}/us-east-1/${of}/aws4_request`;
    const request = { method, path, headers, body: Buffer.from(body) };
    const canonical = canonicalRequest(request, Object.keys(headers).sort());
    expect(signatureOf(secretAccessKey, scope, time, canonical)).toBe(signature);
    const other = canonicalRequest({ ...request, body: Buffer.from(`${body}x`) }, Object.keys(headers).sort());
    expect(signatureOf(secretAccessKey, scope, time, other)).not.toBe(signature);
  });

  test('a wrong secret is refused, and so is an unknown access key', async () => {
    const { arn } = kms.addKey();
    process.env.AWS_SECRET_ACCESS_KEY = 'another';
    const wrong = await failure(service([arn]).seal(secret, context));
    expect([wrong.kind, wrong.message]).toEqual(['refused', expect.stringContaining('InvalidSignatureException (403')]);
    process.env.AWS_ACCESS_KEY_ID = 'AKIDOTHER';
    expect((await failure(service([arn]).seal(secret, context))).message).toContain('UnrecognizedClientException');
  });

  test.each([
    [5 * 60_000 - 2_000, true],
    [-5 * 60_000 + 2_000, true],
  ])('a clock that is %i ms off is taken', async (skewMs) => {
    kms.skewMs = skewMs;
    await service([kms.addKey().arn]).seal(secret, context);
    expect(kms.operations).toEqual(['Encrypt']);
  });

  test.each([6 * 60_000, -6 * 60_000])('a clock that is %i ms off is refused', async (skewMs) => {
    const { arn } = kms.addKey();
    kms.skewMs = skewMs;
    const off = await failure(service([arn]).seal(secret, context));
    expect(off.message).toContain('Signature expired or not yet current');
  });
});

describe('sealing', () => {
  test('what a key sealed opens under its context only, and the record names the key', async () => {
    const key = kms.addKey();
    const keys = service([key.arn]);
    const record = await keys.seal(secret, context);
    expect(record.includes(secret)).toBe(false);
    expect(sealingKeyOf(record)).toBe(key.arn);
    expect(await keys.unseal(record, context)).toEqual(secret);
    expect(kms.contexts).toEqual([{ holdfast: context }, { holdfast: context }]);
    expect((await failure(keys.unseal(record, `${context}1`))).kind).toBe('damaged');
    // A key that is named by its ARN is not asked for.
    expect(kms.operations).toEqual(['Encrypt', 'Decrypt', 'Decrypt']);
  });

  test('a change of any byte is noticed', async () => {
    const keys = service([kms.addKey().arn]);
    const record = await keys.seal(secret, context);
    for (let at = 0; at < record.byteLength; at++) {
      const altered = Buffer.from(record);
      altered[at]! ^= 1;
      expect(['damaged', 'refused']).toContain((await failure(keys.unseal(altered, context))).kind);
    }
    for (const length of [0, 1, 3, 20])
      expect((await failure(keys.unseal(record.subarray(0, length), context))).kind).toBe('damaged');
  });

  test('the first key seals, every one of the settings opens, and no other', async () => {
    const [old, fresh, foreign] = [kms.addKey(), kms.addKey(), kms.addKey()];
    const before = await service([old.arn]).seal(secret, context);
    const both = service([fresh.arn, old.arn]);
    expect(await both.keys()).toEqual([fresh.arn, old.arn]);
    expect(sealingKeyOf(await both.seal(secret, context))).toBe(fresh.arn);
    expect(await both.unseal(before, context)).toEqual(secret);
    // Whoever can write the database can name a key of theirs in a record: it is not even asked.
    const planted = await service([foreign.arn]).seal(secret, context);
    const asked = kms.operations.length;
    const refused = await failure(both.unseal(planted, context));
    expect([refused.kind, refused.message]).toEqual(['refused', expect.stringContaining(foreign.arn)]);
    expect(kms.operations).toHaveLength(asked);
  });

  test('a record whose key was exchanged for another of the settings does not open', async () => {
    const [one, other] = [kms.addKey(), kms.addKey()];
    const keys = service([one.arn, other.arn]);
    const record = await keys.seal(secret, context);
    const exchanged = Buffer.from(record.toString('latin1').replace(one.arn, other.arn), 'latin1');
    const refused = await failure(keys.unseal(exchanged, context));
    expect([refused.kind, refused.message]).toEqual(['damaged', expect.stringContaining('IncorrectKeyException')]);
  });

  test('an alias seals with the key it points to; what an earlier one sealed needs that key in the settings', async () => {
    const [old, fresh] = [kms.addKey('backups'), kms.addKey()];
    const keys = service(['alias/backups']);
    const before = await keys.seal(secret, context);
    expect(sealingKeyOf(before)).toBe(old.arn);
    expect(await keys.unseal(before, context)).toEqual(secret);
    kms.pointAlias('backups', fresh);
    const after = await keys.seal(secret, context);
    expect(sealingKeyOf(after)).toBe(fresh.arn);
    expect(await keys.unseal(after, context)).toEqual(secret);
    expect((await failure(keys.unseal(before, context))).message).toContain(old.arn);
    expect(await service(['alias/backups', old.arn]).unseal(before, context)).toEqual(secret);
  });

  test('a key of the settings that is gone does not close the others', async () => {
    const key = kms.addKey();
    const keys = service([key.arn, 'alias/gone']);
    expect(await keys.unseal(await keys.seal(secret, context), context)).toEqual(secret);
    expect((await failure(keys.keys())).message).toContain('NotFoundException');
  });
});

describe('faults', () => {
  test('a key that is disabled, about to be deleted or forbidden: refused, and the operator is told which', async () => {
    const key = kms.addKey();
    const keys = service([key.arn]);
    await keys.check();
    const record = await keys.seal(secret, context);
    for (const [state, says] of [
      ['Disabled', 'DisabledException'],
      ['PendingDeletion', 'KMSInvalidStateException'],
    ] as const) {
      key.state = state;
      for (const ask of [() => keys.seal(secret, context), () => keys.unseal(record, context)]) {
        const refused = await failure(ask());
        expect([refused.kind, refused.message]).toEqual(['refused', expect.stringContaining(says)]);
        expect(refused.message).toContain(key.arn);
      }
      expect((await failure(keys.check())).message).toContain(state);
    }
    Object.assign(key, { state: 'Enabled', mayDecrypt: false });
    expect((await failure(keys.unseal(record, context))).message).toContain('AccessDeniedException');
  });

  test.each<Mishap>(['throttle', 'fail', 'cut', 'silence'])('what passes (%s) is asked again', async (mishap) => {
    const keys = service([kms.addKey().arn]);
    kms.mishaps.push(mishap);
    const record = await keys.seal(secret, context);
    kms.mishaps.push(mishap);
    expect(await keys.unseal(record, context)).toEqual(secret);
    expect(kms.operations).toEqual(['Encrypt', 'Encrypt', 'Decrypt', 'Decrypt']);
  });

  test.each<Mishap>(['throttle', 'fail', 'cut', 'silence'])(
    'what does not pass (%s) is given up, as unreachable',
    async (mishap) => {
      const keys = service([kms.addKey().arn], { ...quick, attemptsMax: 2 });
      kms.mishaps.push(...Array.from({ length: 20 }, () => mishap));
      expect((await failure(keys.seal(secret, context))).kind).toBe('unreachable');
      expect(kms.operations).toHaveLength(2);
    },
  );

  test('an answer that cannot be read is no key, and nothing of it is told', async () => {
    const keys = service([kms.addKey().arn]);
    const record = await keys.seal(secret, context);
    kms.mishaps.push('nonsense');
    const fault = await failure(keys.unseal(record, context));
    expect(fault.kind).toBe('unreachable');
    expect(`${fault.stack} ${JSON.stringify(fault)}`).not.toMatch(/c2Vj|Plaintext/);
  });

  test('the whole of it has an end, however slow each attempt', async () => {
    const keys = service([kms.addKey().arn], { ...kmsBounds, attemptTimeoutMs: 60_000, timeoutMs: 200 });
    kms.mishaps.push('silence');
    const late = await failure(keys.seal(secret, context));
    expect([late.kind, late.message]).toEqual(['unreachable', expect.stringContaining('no answer within 200 ms')]);
  });

  test('nobody there: unreachable', async () => {
    const { arn } = kms.addKey();
    const keys = service([arn]);
    await kms.close();
    expect((await failure(keys.seal(secret, context))).kind).toBe('unreachable');
  });

  test('no credentials, or none in time: the operator is told', async () => {
    const keys = service([kms.addKey().arn]);
    const elsewhere = {
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_SHARED_CREDENTIALS_FILE: '/nowhere',
      AWS_CONFIG_FILE: '/nowhere',
    };
    Object.assign(process.env, elsewhere);
    delete process.env.AWS_ACCESS_KEY_ID;
    try {
      const without = await failure(keys.seal(secret, context));
      expect([without.kind, without.message]).toEqual(['refused', expect.stringContaining('credentials')]);
    } finally {
      for (const name of Object.keys(elsewhere)) delete process.env[name];
    }
    expect(kms.operations).toEqual([]);
  });

  test('a service without keys is a mistake of ours', () => {
    expect(() => service([])).toThrow(RangeError);
  });
});
