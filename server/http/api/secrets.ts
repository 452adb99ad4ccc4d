/**
 * What of a request's body may be kept, if only as a part of a hash: all but the fields that their schema says are secret
 * (`writeOnly`, which the OpenAPI document shows as well). A fast hash of a password can be guessed at as fast.
 */
import { z } from 'zod';

interface Schema {
  writeOnly?: boolean;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
}

/** @returns gives a body back with `true` in the place of each secret: that one was given is none */
export function withoutSecrets(body: z.ZodType): (given: unknown) => unknown {
  const schema = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as Schema;
  if (isHidden(schema)) throw new Error('a schema has a secret where none is looked for: below a $ref, or in a tuple');
  return (given) => strip(schema, given);
}

const followed = new Set(['properties', 'additionalProperties', 'items', 'anyOf', 'oneOf', 'allOf']);

/** Whether there is a secret that `strip` would not come to, or may be one. */
function isHidden(schema: object): boolean {
  return Object.entries(schema).some(([word, below]) => {
    if (word === '$ref') return true;
    if (typeof below !== 'object' || below === null) return false;
    if (!followed.has(word)) return JSON.stringify(below).includes('"writeOnly":true');
    const schemas = word === 'items' || word === 'additionalProperties' ? [below] : Object.values(below as object);
    return schemas.some((each) => typeof each === 'object' && each !== null && isHidden(each));
  });
}

function strip(schema: Schema, given: unknown): unknown {
  if (given === undefined || given === null) return given;
  if (schema.writeOnly) return true;
  let left: unknown = given;
  for (const each of [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])])
    left = strip(each, left);
  if (Array.isArray(left)) return schema.items ? left.map((item) => strip(schema.items!, item)) : left;
  if (typeof left !== 'object' || left === null) return left;
  const { properties = {}, additionalProperties: others } = schema;
  const other = typeof others === 'object' ? others : {};
  return Object.fromEntries(
    Object.entries(left).map(([name, value]) => [
      name,
      strip(Object.hasOwn(properties, name) ? properties[name]! : other, value),
    ]),
  );
}
