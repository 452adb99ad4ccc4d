import { expect, test } from '@jest/globals';
import { verdictOn } from './verdicts.ts';

const undelete = { method: 'POST', path: '/v1/repositories/{guid}/undelete' };
const browse = { method: 'POST', path: '/v1/devices/{guid}/browse' };
const nothing = { shown: {}, damaged: { files: 0, first: [] }, next: null, gone: [] };
const name = `snapshots/${'a'.repeat(64)}`;

test('a device that says why it shows nothing is a failure, with its words', () => {
  const fault = { code: 'not_found', detail: '/nope: there is nothing at this path' };
  expect(verdictOn(browse, { params: ['5'] }, { entries: [], next: null, fault })).toEqual({
    says: '/nope: there is nothing at this path (not_found)',
    isFailure: true,
  });
  expect(verdictOn(browse, { params: ['5'] }, { entries: [], next: null, fault: null })).toBeNull();
});

test('a name that never was there is a failure; what is there already is none, and is said', () => {
  expect(verdictOn(undelete, { params: ['5'] }, { ...nothing, gone: [name] })).toEqual({
    says: expect.stringMatching(/^Nothing is hidden under snapshots\/a+: .*\nWhat can be .* hidden list 5$/),
    isFailure: true,
  });
  const some = { ...nothing, shown: { data: { files: 1, bytes: 2 } } };
  expect(verdictOn(undelete, { params: ['5'] }, { ...some, gone: Array(7).fill('config') })).toMatchObject({
    says: expect.stringContaining('config and 2 more:'),
    isFailure: true,
  });
  expect(verdictOn(undelete, { params: ['5'] }, nothing)).toMatchObject({ isFailure: false });
  expect(verdictOn(undelete, { params: ['5'] }, some)).toBeNull();
  expect(verdictOn(undelete, { params: ['5'] }, { ...nothing, next: 'x' })).toBeNull();
});

test('what is hidden and damaged is named, and a failure, whatever else was had back', () => {
  const damaged = { ...nothing, damaged: { files: 2, first: ['data/a', 'data/b'] } };
  const says = expect.stringMatching(/^2 files cannot be had back, .* damaged: data\/a, data\/b\..*\n.* check/s);
  const some = { shown: { data: { files: 1, bytes: 2 } } };
  for (const answer of [damaged, { ...damaged, ...some }, { ...damaged, next: 'x' }])
    expect(verdictOn(undelete, { params: ['5'] }, answer)).toEqual({ says, isFailure: true });
  const first = Array(5).fill('data/a');
  const many = verdictOn(undelete, { params: ['5'] }, { ...damaged, damaged: { files: 1_000, first } });
  expect(many!.says).toContain('data/a and 995 more');
  const both = verdictOn(undelete, { params: ['5'] }, { ...damaged, gone: [name] });
  expect(both!.says).toMatch(/^Nothing is hidden under .*\n2 files cannot be had back/s);
});

test('of the last of several steps it is not said that nothing has changed', () => {
  const body = { since: '2026-03-01T00:00:00Z', after: 'x' };
  expect(verdictOn(undelete, { params: ['5'], body }, nothing)).toMatchObject({
    says: 'Nothing more of it is hidden.',
    isFailure: false,
  });
});

test.each([[{ id: 3 }], ['text'], [null], [[1]], [{ fault: 'a word' }]])('%j says nothing more', (answer) => {
  expect(verdictOn({ method: 'GET', path: '/v1/users/{user}' }, { params: ['3'] }, answer)).toBeNull();
});
