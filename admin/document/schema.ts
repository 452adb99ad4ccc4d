/** JSON Schema as the server's document holds it: read with care for what is not there, never trusted to be complete. */

export interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  additionalProperties?: boolean | Schema;
  description?: string;
  default?: unknown;
  format?: string;
  pattern?: string;
  minimum?: number;
  exclusiveMinimum?: number;
  examples?: unknown[];
  writeOnly?: boolean;
}

/** What a schema allows beside null. */
export function withoutNull(schema: Schema): { schema: Schema; nullable: boolean } {
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== 'null');
    const nullable = types.length < schema.type.length;
    return { schema: { ...schema, type: types.length === 1 ? types[0]! : types }, nullable };
  }
  const variants = variantsOf(schema);
  const rest = variants.filter((variant) => variant.type !== 'null');
  if (variants.length === 0 || rest.length === variants.length) return { schema, nullable: false };
  const { anyOf: _any, oneOf: _one, ...common } = schema;
  const one = rest.length === 1 ? rest[0]! : { anyOf: rest };
  return { schema: { ...one, ...common }, nullable: true };
}

export function variantsOf({ anyOf, oneOf }: Schema): Schema[] {
  return anyOf ?? oneOf ?? [];
}

/** The properties of an object, of all its variants together; required are those that every variant requires. */
export function propertiesOf(schema: Schema): { properties: Record<string, Schema>; required: Set<string> } {
  const variants = variantsOf(schema).map(propertiesOf);
  const parts = (schema.allOf ?? []).map(propertiesOf);
  const properties = Object.assign(
    {},
    ...[...variants, ...parts].map((each) => each.properties),
    schema.properties ?? {},
  ) as Record<string, Schema>;
  const inAll = Object.keys(properties).filter(
    (name) =>
      schema.required?.includes(name) ||
      parts.some(({ required }) => required.has(name)) ||
      (variants.length > 0 && variants.every(({ required }) => required.has(name))),
  );
  return { properties, required: new Set(inAll) };
}

/** Whether it is an object whose properties are known. */
export function isShape(schema: Schema): boolean {
  return Object.keys(propertiesOf(schema).properties).length > 0;
}
