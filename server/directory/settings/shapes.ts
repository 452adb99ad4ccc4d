/** What requests about settings hold, and what they are answered with: made from the definitions, group by group. */
import { z } from 'zod';
import { id } from '../users/shapes.ts';
import { groupOf, type SettingName, settingDefinitions, settingNames } from './definitions.ts';

/** The part after the dot. */
export const keyOf = (name: SettingName): string => name.slice(name.indexOf('.') + 1);

type ByGroup<Value> = Partial<Record<string, Partial<Record<string, Value>>>>;

/** An object of the groups, each an object of its settings, all optional. */
function byGroup<Schema extends z.ZodType>(
  names: readonly SettingName[],
  schemaOf: (name: SettingName) => Schema,
): z.ZodType<ByGroup<z.output<Schema>>> {
  const groups = Map.groupBy(names, groupOf);
  const shape = [...groups].map(([group, names]) => [
    group,
    z.strictObject(Object.fromEntries(names.map((name) => [keyOf(name), schemaOf(name).optional()]))).optional(),
  ]);
  return z.strictObject(Object.fromEntries(shape)) as unknown as z.ZodType<ByGroup<z.output<Schema>>>;
}

const inheritedNames = settingNames.filter((name) => settingDefinitions[name].inherited);

function valueMeta(name: SettingName): Record<string, unknown> {
  const { schema, says } = settingDefinitions[name];
  const { $schema: _, ...takes } = z.toJSONSchema(schema, { io: 'input' });
  return { description: `${says} null: as inherited.`, anyOf: [takes, { type: 'null' }] };
}

export const ChangeSettingsRequest = z
  .strictObject({
    // Read by the definitions themselves, which name every fault in a value; for the document only they say what it takes.
    settings: byGroup(settingNames, (name) => z.unknown().meta(valueMeta(name))).default({}),
    locked: byGroup(inheritedNames, () => z.boolean())
      .default({})
      .meta({
        description:
          'true: binds all organizations below, whatever they have of their own. What is inherited becomes its own by that.',
      }),
  })
  .refine(({ settings, locked }) => namesIn(settings).length + namesIn(locked).length > 0, 'changes nothing');

export const PushSettingsRequest = z.strictObject({
  settings: z
    .array(z.enum(inheritedNames as [SettingName, ...SettingName[]]))
    .min(1)
    .max(inheritedNames.length)
    .refine((names) => new Set(names).size === names.length, 'names one twice'),
});

export const PushedSettings = z.strictObject({
  pushed: z.array(
    z.strictObject({
      setting: z.string(),
      organizations: z.int().meta({ description: 'How many had a value of their own, and inherit now.' }),
      devices: z.int().meta({ description: 'The same of devices, which can have a retention policy of their own.' }),
    }),
  ),
});

const named = z.strictObject({ id, name: z.string() });

export const SettingView = z.strictObject({
  value: z
    .unknown()
    .meta({ description: 'What holds. null: what is stored cannot be read (`faults`), so nothing does.' }),
  from: z.union([z.literal('default'), z.strictObject({ organization: named })]),
  own: z.unknown().meta({ description: 'Its own value, as stored; null: it has none.' }),
  lockedBy: named.nullable().meta({ description: 'The organization above that has locked it.' }),
  locks: z.boolean().meta({ description: 'It has locked it itself, for all below.' }),
  overridden: z.boolean().meta({ description: 'Its own value does not hold, because of a lock above.' }),
  faults: z.array(z.strictObject({ field: z.string(), message: z.string() })),
});

export const SettingsView = z.strictObject({
  organization: named,
  version: z.int().meta({ description: "The organization's." }),
  settings: z.record(z.string(), z.record(z.string(), SettingView)).meta({ description: 'By group, then by name.' }),
});

/** Those that are named in an object of groups, in the order of their definition. A value of null names, undefined does not. */
export function namesIn(groups: ByGroup<unknown>): SettingName[] {
  return settingNames.filter((name) => groups[groupOf(name)]?.[keyOf(name)] !== undefined);
}
