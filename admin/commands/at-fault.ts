/**
 * A problem of the server, said of what the person typed: the server names fields of a query or a body, and here they were
 * options. Pure. Scripts are told of the fields, as the API is.
 */
import { Problem } from '../../protocol/problems.ts';
import type { Neighbour } from './neighbour.ts';
import type { GivenOption } from './options.ts';

/** With the words for whoever gave options. Everything else of it is the server's. */
export class ProblemOfOptions extends Problem {
  readonly inWords: string;
  /** The option at fault, and what was given with it; null: none of them is. */
  readonly atFault: string | null;
  /** The command that takes what is at fault, as it is typed; null: this one does, or none. */
  readonly instead: string | null;

  constructor(problem: Problem, said: { inWords: string; atFault: string | null; instead: string | null }) {
    super(problem.code, problem.message, problem.extras, { cause: problem });
    this.inWords = said.inWords;
    this.atFault = said.atFault;
    this.instead = said.instead;
  }
}

/**
 * @param hasBody the rest was given as one body, and is called as it is there
 * @param neighbourWith asked for a field that none of the options stands for
 * @returns the error, as one of options where it is a problem of the server
 */
export function saidOfOptions(
  error: unknown,
  options: readonly GivenOption[],
  { hasBody, neighbourWith = () => null }: { hasBody: boolean; neighbourWith?: (field: string) => Neighbour | null },
): unknown {
  if (!(error instanceof Problem)) return error;
  const { field } = error.extras;
  const known = field === undefined || atFault(field, options) !== null;
  const neighbour = known ? null : neighbourWith(field);
  const given = hasBody ? options.filter(({ texts, isNull }) => texts.length > 0 || isNull) : options;
  return new ProblemOfOptions(error, {
    inWords: withOptions(error.message, neighbour ? [neighbour.option] : options),
    instead: neighbour?.command ?? null,
    atFault: field === undefined ? null : atFault(field, given),
  });
}

/** A text of others may be long. */
const shownMax = 80;

/** The option with that name, or else the nearest one that it lies in. */
function atFault(field: string, options: readonly GivenOption[]): string | null {
  const names = field.split('.');
  for (let length = names.length; length > 0; length--) {
    const option = find(names.slice(0, length).join('.'), options);
    if (option) return saidOf(option, names.slice(length));
  }
  return null;
}

/** @param inside what is at fault in it; of a list of texts (`paths.2`) one was given for each */
function saidOf({ flag, texts, field }: GivenOption, inside: readonly string[]): string {
  const isOneOfList = field.kind === 'list' && inside.length === 1 && /^\d+$/.test(inside[0]!);
  const text = texts.length === 1 ? texts[0] : isOneOfList ? texts[Number(inside[0])] : undefined;
  const within = inside.length === 0 || isOneOfList ? '' : `${inside.join('.')} in `;
  if (text === undefined) return `${within}${flag}`;
  const shown = text === '' || /[\s']/.test(text) ? JSON.stringify(text) : text;
  return `${within}${flag} ${shown.length > shownMax ? `${shown.slice(0, shownMax)}...` : shown}`;
}

const find = (field: string, options: readonly GivenOption[]): GivenOption | undefined =>
  options.find(({ field: { path } }) => path.join('.') === field);

/** Fields that a message names: in backticks, or by a name that is no word of a language (`evenIfInUse`). */
function withOptions(message: string, options: readonly GivenOption[]): string {
  return message.replaceAll(/`([\w.]+)`|\b[a-z]+[A-Z]\w*/g, (said, quoted: string | undefined) => {
    const option = find(quoted ?? said, options);
    if (!option) return said;
    return option.field.kind === 'boolean' ? `${option.flag} true` : option.flag;
  });
}
