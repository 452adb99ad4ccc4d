/**
 * The command beside one: of the same path, by another method. It may have an option for what this one has none for, as
 * `restores fetch-wrapped` takes the password that `restores fetch` cannot. Pure.
 */
import { Command } from 'commander';
import { nameOperations } from '../document/names.ts';
import { isStream, type Operation } from '../document/operations.ts';
import { quoted } from './examples.ts';
import { addFieldOptions, type GivenOption } from './options.ts';

export interface Neighbour {
  option: GivenOption;
  /** With that option, as it is typed. */
  command: string;
}

/** Of files and lines: nothing that changes is named in the place of what reads. */
const isReading = (operation: Operation): boolean => isStream(operation) && !operation.isChange;

interface Invoked {
  operation: Operation;
  operations: readonly Operation[];
  params: readonly string[];
  /** Of `--output`. */
  output: string | undefined;
}

/** @returns null: no command of this path has an option for the field */
export function neighbourWith(field: string, { operation, operations, params, output }: Invoked): Neighbour | null {
  if (!isReading(operation)) return null;
  for (const [name, other] of nameOperations(operations)) {
    if (other.path !== operation.path || other === operation || !isReading(other)) continue;
    const { fields } = addFieldOptions(new Command(), other);
    const option = fields.find((each) => each.field.path.join('.') === field);
    if (!option) continue;
    const words = ['npm run admin --', name, ...params.map(quoted), option.flag, option.field.secret ? 'FILE' : '...'];
    if (output !== undefined) words.push('--output', quoted(output));
    return { option, command: words.join(' ') };
  }
  return null;
}
