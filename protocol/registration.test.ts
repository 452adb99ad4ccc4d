/** Who may be named in a registration, and how: the message alone. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { DevicesRequest, RegisterRequest } from './messages.ts';
import { Problem } from './problems.ts';
import { validate } from './wire.ts';

const signIn = { registrationKey: 'ABCD', userName: 'anna', password: 'secret' };
const rest = { device: { name: 'laptop', platform: 'linux', agentVersion: '1' }, vaultKey: { level: 'standard' } };
const token = randomBytes(32).toString('base64url');

/** `ok`, or the code and field of the problem. */
function said(schema: typeof RegisterRequest | typeof DevicesRequest, value: object): string {
  try {
    validate(schema, value);
    return 'ok';
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    expect(error.message).toMatch(/^[\w()]+( message\))?: ./);
    return `${error.code} ${error.extras.field}`;
  }
}

const cases: [what: string, given: object, expected: string][] = [
  ['a sign-in', signIn, 'ok'],
  ['a sign-in with a code', { ...signIn, code: '123456' }, 'ok'],
  ['a code of 64 characters', { ...signIn, code: 'x'.repeat(64) }, 'ok'],
  ['a code of 65 characters', { ...signIn, code: 'x'.repeat(65) }, 'out_of_bounds code'],
  ['an empty code', { ...signIn, code: '' }, 'out_of_bounds code'],
  ['a registration code', { registrationCode: 'A' }, 'ok'],
  ['a registration code of 64 characters', { registrationCode: 'x'.repeat(64) }, 'ok'],
  ['a registration code of 65 characters', { registrationCode: 'x'.repeat(65) }, 'out_of_bounds registrationCode'],
  ['an empty registration code', { registrationCode: '' }, 'out_of_bounds registrationCode'],
  ['nothing', {}, 'malformed_request registrationKey'],
  ['a code alone', { code: '123456' }, 'malformed_request registrationKey'],
  ['no name', { ...signIn, userName: undefined }, 'malformed_request userName'],
  ['no password', { ...signIn, password: undefined }, 'malformed_request password'],
  ['both', { ...signIn, registrationCode: 'A' }, 'malformed_request registrationKey'],
  ['a registration code and a name', { userName: 'anna', registrationCode: 'A' }, 'malformed_request userName'],
  ['a registration code and a code', { code: '123456', registrationCode: 'A' }, 'malformed_request code'],
  ['something unknown', { ...signIn, pin: '1' }, 'malformed_request (whole message)'],
];

describe('who registers, or looks at the devices there are, by', () => {
  test.each(cases)('%s', (_, given, expected) => {
    expect(said(DevicesRequest, given)).toBe(expected);
    expect(said(RegisterRequest, { ...rest, ...given })).toBe(expected);
  });
});

describe('the token of a registration', () => {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const twin = token.slice(0, -1) + alphabet[alphabet.indexOf(token.at(-1)!) ^ 1];
  test.each([
    ['left out', undefined, 'ok'],
    ['of 32 bytes', token, 'ok'],
    ['of 31 bytes', randomBytes(31).toString('base64url'), 'malformed_request token'],
    ['of 33 bytes', randomBytes(33).toString('base64url'), 'malformed_request token'],
    ['written with bits that mean nothing', twin, 'malformed_request token'],
    ['in other characters', `+${token.slice(1)}`, 'malformed_request token'],
    ['empty', '', 'malformed_request token'],
  ])('%s', (_, given, expected) => {
    expect(said(RegisterRequest, { ...rest, ...signIn, token: given })).toBe(expected);
  });
});
