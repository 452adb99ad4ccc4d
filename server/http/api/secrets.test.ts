/** Nothing secret is in what is kept of a request. */
import { expect, test } from '@jest/globals';
import { z } from 'zod';
import type { ChangeRoute } from './route.ts';
import { apiRoutes } from './routes.ts';
import { withoutSecrets } from './secrets.ts';

const secret = z.string().meta({ writeOnly: true });

test.each<[what: string, schema: z.ZodType, given: unknown, kept: unknown]>([
  ['a field', z.strictObject({ a: z.string(), b: secret }), { a: 'x', b: 'y' }, { a: 'x', b: true }],
  ['one that may be left out', z.strictObject({ b: secret.optional() }), { b: 'y' }, { b: true }],
  ['one that was left out', z.strictObject({ b: secret.optional() }), {}, {}],
  ['one that may be null', z.strictObject({ b: secret.nullable().default(null) }), { b: 'y' }, { b: true }],
  ['one that is null', z.strictObject({ b: secret.nullable() }), { b: null }, { b: null }],
  ['below another', z.strictObject({ a: z.strictObject({ b: secret }) }), { a: { b: 'y' } }, { a: { b: true } }],
  [
    'in a list',
    z.strictObject({ a: z.array(z.strictObject({ b: secret })) }),
    { a: [{ b: 'y' }] },
    { a: [{ b: true }] },
  ],
  ['by any name', z.record(z.string(), secret), { b: 'y' }, { b: true }],
  [
    'in one of several',
    z.union([z.strictObject({ b: secret }), z.strictObject({ c: z.int() })]),
    { b: 'y' },
    { b: true },
  ],
  ['of a refined one', z.strictObject({ b: secret }).refine(() => true), { b: 'y' }, { b: true }],
  ['named as something of every object', z.strictObject({ a: z.int() }), { toString: 1 }, { toString: 1 }],
  ['none', z.strictObject({ a: z.array(z.int()) }), { a: [1, 2] }, { a: [1, 2] }],
])('%s', (_, schema, given, kept) => {
  expect(withoutSecrets(schema)(given)).toEqual(kept);
});

const named = z.strictObject({ a: z.string() }).meta({ id: 'named' });

test.each<[what: string, schema: z.ZodType]>([
  ['a tuple', z.strictObject({ a: z.tuple([z.int(), secret]) })],
  ['a schema that has a name', z.strictObject({ a: z.array(named), b: named })],
  ['one that is of itself', z.strictObject({ a: z.lazy((): z.ZodType => z.array(named)) })],
])('%s, where none is looked for, is refused before any request', (_, schema) => {
  expect(() => withoutSecrets(schema)).toThrow('none is looked for');
});

test('a tuple without one is as good as any', () => {
  expect(withoutSecrets(z.strictObject({ a: z.tuple([z.int(), z.int()]) }))({ a: [1, 2] })).toEqual({ a: [1, 2] });
});

/** Names of what a body may hold that is text, as `settings.groups.group`. */
function textsIn(schema: z.core.JSONSchema.BaseSchema, at = ''): string[] {
  const below = Object.entries(schema.properties ?? {}).flatMap(([name, each]) =>
    textsIn(each as never, `${at}.${name}`),
  );
  const ways = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  const all = [...below, ...ways.flatMap((each) => textsIn(each as never, at))];
  if (schema.items) all.push(...textsIn(schema.items as never, at));
  return schema.type === 'string' ? [...all, at.slice(1)] : all;
}

const bodies = apiRoutes.filter((route): route is ChangeRoute => route.kind === 'change' && route.body !== undefined);
const sounds = /password|secret|token|code|credential|passphrase|privateKey/i;

test('what a change is told that sounds secret is kept of no request', () => {
  const found: string[] = [];
  for (const { method, path, body } of bodies) {
    const schema = z.toJSONSchema(body!, { io: 'input', unrepresentable: 'any', reused: 'inline' });
    for (const name of new Set(textsIn(schema).filter((each) => sounds.test(each.split('.').at(-1)!)))) {
      const given = name.split('.').reduceRight<unknown>((value, key) => ({ [key]: value }), 'hunter2');
      found.push(`${method} ${path}: ${name}`);
      expect([path, JSON.stringify(withoutSecrets(body!)(given))]).toEqual([
        path,
        expect.not.stringContaining('hunter2'),
      ]);
    }
  }
  expect(found.sort()).toEqual([
    'PATCH /v1/identity-providers/:provider: openidSecret',
    'POST /v1/identity-providers: openidSecret',
    'POST /v1/restores/:id/stage: password',
  ]);
});
