import { expect, test } from '@jest/globals';
import { verdictOn } from './verdicts.ts';

const undelete = { method: 'POST', path: '/v1/repositories/{guid}/undelete' };
const browse = { method: 'POST', path: '/v1/devices/{guid}/browse' };
const name = `snapshots/${'a'.repeat(64)}`;

test('a device that says why it shows nothing is a failure, with its words', () => {
  const fault = { code: 'not_found', detail: '/nope: there is nothing at this path' };
  expect(verdictOn(browse, ['5'], { entries: [], next: null, fault })).toEqual({
    says: '/nope: there is nothing at this path (not_found)',
    isFailure: true,
  });
  expect(verdictOn(browse, ['5'], { entries: [], next: null, fault: null })).toBeNull();
});

test('a name that never was there is a failure; what is there already is none, and is said', () => {
  const nothing = { shown: {}, damaged: { files: 0, first: [] }, next: null, gone: [] };
  expect(verdictOn(undelete, ['5'], { ...nothing, gone: [name] })).toEqual({
    says: expect.stringMatching(/^Nothing is hidden under snapshots\/a+: .*\nWhat can be .* hidden list 5$/),
    isFailure: true,
  });
  const some = { ...nothing, shown: { data: { files: 1, bytes: 2 } } };
  expect(verdictOn(undelete, ['5'], { ...some, gone: Array(7).fill('config') })).toMatchObject({
    says: expect.stringContaining('config and 2 more:'),
    isFailure: true,
  });
  expect(verdictOn(undelete, ['5'], nothing)).toMatchObject({ isFailure: false });
  expect(verdictOn(undelete, ['5'], some)).toBeNull();
  expect(verdictOn(undelete, ['5'], { ...nothing, next: 'x' })).toBeNull();
});

test.each([[{ id: 3 }], ['text'], [null], [[1]], [{ fault: 'a word' }]])('%j says nothing more', (answer) => {
  expect(verdictOn({ method: 'GET', path: '/v1/users/{user}' }, ['3'], answer)).toBeNull();
});
