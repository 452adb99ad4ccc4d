/**
 * A problem of the server, said of what the person typed: the server names fields of a query or a body, and here they were
 * options. Pure. Scripts are told of the fields, as the API is.
 */
import { Problem } from '../../protocol/problems.ts';
import type { GivenOption } from './options.ts';

/** With the words for whoever gave options. Everything else of it is the server's. */
export class ProblemOfOptions extends Problem {
  readonly inWords: string;
  /** The option at fault, and what was given with it; null: none of them is. */
  readonly atFault: string | null;

  constructor(problem: Problem, said: { inWords: string; atFault: string | null }) {
    super(problem.code, problem.message, problem.extras, { cause: problem });
    this.inWords = said.inWords;
    this.atFault = said.atFault;
  }
}

/**
 * @param hasBody the rest was given as one body, and is called as it is there
 * @returns the error, as one of options where it is a problem of the server
 */
export function saidOfOptions(
  error: unknown,
  options: readonly GivenOption[],
  { hasBody }: { hasBody: boolean },
): unknown {
  if (!(error instanceof Problem)) return error;
  const { field } = error.extras;
  const given = hasBody ? options.filter(({ texts, isNull }) => texts.length > 0 || isNull) : options;
  return new ProblemOfOptions(error, {
    inWords: withOptions(error.message, options),
    atFault: field === undefined ? null : atFault(field, given),
  });
}

/** A text of others may be long. */
const shownMax = 80;

function atFault(field: string, options: readonly GivenOption[]): string | null {
  // `paths.2` is the third of a list.
  const [, name, index] = /^(.*?)(?:\.(\d+))?$/s.exec(field)!;
  const option = find(field, options) ?? find(name!, options);
  if (!option) return null;
  const { flag, texts } = option;
  const text = texts.length === 1 ? texts[0] : index === undefined ? undefined : texts[Number(index)];
  if (text === undefined) return flag;
  const shown = text === '' || /[\s']/.test(text) ? JSON.stringify(text) : text;
  return `${flag} ${shown.length > shownMax ? `${shown.slice(0, shownMax)}...` : shown}`;
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
