import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../errors.ts';
import { fieldOf, fieldsOf, put, readValue } from './fields.ts';
import type { Schema } from './schema.ts';

const field = (schema: Schema, name = 'x') => fieldOf(schema, [name], false);
const read = (schema: Schema, text: string): unknown => readValue(field(schema), text, '--x');
const moment: Schema = {
  type: 'string',
  format: 'date-time',
  pattern: '^\\d{4}-\\d\\d-\\d\\dT[\\d:]+(Z|[+-]\\d\\d:\\d\\d)$',
};
const nullable = (type: string): Schema => ({ anyOf: [{ type }, { type: 'null' }] });

describe('a text becomes the value its schema takes', () => {
  test.each<[Schema, string, unknown]>([
    [{ type: 'string' }, '5', '5'],
    [{ type: 'string' }, 'null', 'null'],
    [{ type: 'string' }, '', ''],
    [nullable('string'), 'null', 'null'],
    [moment, '2026-03-01T14:30:00Z', '2026-03-01T14:30:00Z'],
    // Without an example it is the server that says what is wrong, and so with a pattern that is none.
    [{ type: 'string', pattern: '^\\d+$' }, '-3', '-3'],
    [{ type: 'string', pattern: '(', examples: ['12'] }, '-3', '-3'],
    [{ type: 'integer' }, '-7', -7],
    [{ type: 'integer' }, '9007199254740991', 9007199254740991],
    [{ type: ['integer', 'null'] }, 'null', null],
    [nullable('integer'), '3', 3],
    [{ type: 'number' }, '0.5', 0.5],
    [{ type: 'boolean' }, 'false', false],
    [{ enum: ['a', 'b'] }, 'b', 'b'],
    [{ const: 'only' }, 'only', 'only'],
    [{ type: 'array', items: { type: 'integer' } }, '4', 4],
    [{ type: 'object' }, '{"a":1}', { a: 1 }],
    [{}, '5', 5],
    [{}, 'null', null],
    [{}, 'weekly', 'weekly'],
    [{}, '["a"]', ['a']],
    [{ anyOf: [{ type: 'string', const: 'none' }, { type: 'number' }] }, 'none', 'none'],
  ])('%j, %s', (schema, text, value) => expect(read(schema, text)).toEqual(value));

  test.each<[Schema, string, RegExp]>([
    [{ type: 'integer' }, '1.5', /--x takes a whole number, not "1.5"/],
    [{ type: 'integer' }, '9007199254740992', /whole number/],
    [{ type: 'integer' }, '', /whole number/],
    [{ type: 'integer' }, 'null', /whole number/],
    [{ type: 'number' }, 'NaN', /a number/],
    [{ type: 'number' }, ' ', /a number/],
    [{ type: 'boolean' }, 'yes', /true or false/],
    [{ enum: ['a', 'b'] }, 'c', /one of a, b/],
    [moment, 'yesterday', /--x takes a moment with its time zone such as 2026-03-01T14:30:00Z, not "yesterday"/],
    [moment, '2026-03-01', /moment/],
    [{ type: 'string', pattern: '^\\d+$', examples: ['12'] }, '-3', /--x takes a number such as 12, not "-3"/],
    [{ type: 'object' }, '[1]', /JSON object/],
    [{ type: 'object' }, '{', /JSON object/],
    [{}, '{"a":', /JSON or a word/],
  ])('%j refuses %j', (schema, text, says) => {
    expect(() => read(schema, text)).toThrow(UsageError);
    expect(() => read(schema, text)).toThrow(says);
  });
});

test('passwords and other secrets are fields that take no text, and numbers about them are not', () => {
  expect(field({ type: 'string' }, 'password').secret).toBe(true);
  expect(field({ type: 'string' }, 'newPassword').secret).toBe(true);
  expect(field({ type: 'string' }, 'client_secret').secret).toBe(true);
  expect(field({ type: 'string' }, 'refreshToken').secret).toBe(true);
  expect(field({ type: 'string', writeOnly: true }, 'x').secret).toBe(true);
  expect(field({ type: 'integer' }, 'passwordDays').secret).toBe(false);
  expect(field({ type: 'string' }, 'name').secret).toBe(false);
});

test('objects are taken apart, so deep and no deeper; only what is needed at the top is needed', () => {
  const deep = (levels: number): Schema =>
    levels === 0 ? { type: 'string' } : { type: 'object', properties: { in: deep(levels - 1) }, required: ['in'] };
  const found = fieldsOf(deep(6)).map(({ path, kind, required }) => [path.join('.'), kind, required]);
  expect(found).toEqual([
    ['in', 'object', true],
    ['in.in', 'object', false],
    ['in.in.in', 'object', false],
    ['in.in.in.in', 'object', false],
  ]);
});

test('of several variants all properties are there, and needed is what all of them need', () => {
  const schema: Schema = {
    anyOf: [
      { type: 'object', properties: { kind: { const: 'a' }, a: { type: 'string' } }, required: ['kind', 'a'] },
      { type: 'object', properties: { kind: { const: 'b' }, b: { type: 'string' } }, required: ['kind'] },
    ],
  };
  expect(fieldsOf(schema).map(({ path, required }) => [path[0], required])).toEqual([
    ['kind', true],
    ['a', false],
    ['b', false],
  ]);
});

test('values come to their places, over what is there and without changing it', () => {
  const given = { settings: { quotas: { seats: 1, bytes: 2 } } };
  const body: Record<string, unknown> = { ...given };
  put(body, ['settings', 'quotas', 'seats'], 5);
  put(body, ['settings', 'alerts', 'days'], null);
  expect(body).toEqual({ settings: { quotas: { seats: 5, bytes: 2 }, alerts: { days: null } } });
  expect(given.settings.quotas.seats).toBe(1);
});
