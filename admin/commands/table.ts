/** Answers for people: many things as a table, one thing as lines of name and value. Pure: text in, lines out. */
import { propertiesOf, type Schema, withoutNull } from '../document/schema.ts';
import { cut, padded, printable, widthOf } from './printable.ts';
import { valueInWords } from './words.ts';

const gap = '  ';
/** A column is not made narrower than this, which shows a moment: it is left out instead. */
const columnWidthMin = 19;
/** Stand last, and are left out first: true of everything, or long. */
const leastWanted = ['createdAt', 'path', 'description', 'permissions', 'details', 'version', 'hash'];

/**
 * Items under a head line, cut to the width. Columns stand in the order of the answer's schema, which begins with what a
 * thing is known by; those that do not fit are left out from the least wanted one on.
 * @param width columns of the terminal; null: nobody's, so nothing is cut
 */
export function tableLines(
  items: readonly unknown[],
  schema: Schema,
  width: number | null,
): { lines: string[]; leftOut: string[] } {
  const rows = items.map(
    (item) => (typeof item === 'object' && item !== null ? item : { value: item }) as Record<string, unknown>,
  );
  const columns = columnsOf(rows, schema).map((name) => {
    const cells = rows.map((row) => valueInWords(name, row[name]));
    return { name, cells, width: Math.max(widthOf(name), ...cells.map(widthOf)) };
  });
  const kept = width === null ? columns : fitted(columns, width);
  const line = (cells: string[]): string =>
    cells
      .map((cell, at) => padded(cut(cell, kept[at]!.width), kept[at]!.width))
      .join(gap)
      .trimEnd();
  return {
    lines: [
      line(kept.map(({ name }) => printable(name))),
      ...rows.map((_, row) => line(kept.map(({ cells }) => cells[row]!))),
    ],
    leftOut: columns.filter((column) => !kept.some(({ name }) => name === column.name)).map(({ name }) => name),
  };
}

function columnsOf(rows: readonly Record<string, unknown>[], schema: Schema): string[] {
  const described = Object.keys(propertiesOf(withoutNull(schema).schema).properties);
  const names = [...new Set([...described, ...rows.flatMap((row) => Object.keys(row))])];
  // An optional one that nothing has is no column.
  const present = names.filter((name) => rows.some((row) => row[name] !== undefined));
  return [...present].sort((a, b) => leastWanted.indexOf(a) - leastWanted.indexOf(b));
}

interface Column {
  name: string;
  cells: string[];
  width: number;
}

/** Leaves out what has nothing in it, then from the right, until the rest fits when narrow; then narrows the widest. */
function fitted(columns: readonly Column[], width: number): Column[] {
  const total = (widths: number[]): number =>
    widths.reduce((sum, each) => sum + each, gap.length * (widths.length - 1));
  const kept = [...columns];
  const least = (column: Column): number => Math.min(column.width, columnWidthMin);
  while (kept.length > 1 && total(kept.map(least)) > width) {
    const empty = kept.findLastIndex(({ cells }) => cells.every((cell) => cell === '-'));
    kept.splice(empty > 0 ? empty : kept.length - 1, 1);
  }
  const widths = kept.map((column) => column.width);
  while (total(widths) > width && Math.max(...widths) > 1) {
    const widest = widths.indexOf(Math.max(...widths));
    widths[widest] = widths[widest]! - 1;
  }
  return kept.map((column, at) => ({ ...column, width: widths[at]! }));
}

/** One thing: a line per value, what is inside of objects with dots. */
export function detailLines(value: unknown): string[] {
  const pairs = pairsOf(value, []);
  const nameWidth = Math.max(0, ...pairs.map(([name]) => widthOf(name)));
  return pairs.map(([name, text]) => (name === '' ? text : `${padded(name, nameWidth)}${gap}${text}`));
}

/** An object of so many properties or fewer that says who or what it is, is one value. */
const namedPropertiesMax = 3;

function pairsOf(value: unknown, path: readonly string[]): [name: string, text: string][] {
  const name = printable(path.join('.'));
  if (Array.isArray(value) && value.some((each) => typeof each === 'object' && each !== null && !isNamed(each)))
    return value.flatMap((each, at) => pairsOf(each, [...path, String(at + 1)]));
  if (typeof value !== 'object' || value === null || Array.isArray(value) || (path.length > 0 && isNamed(value)))
    return [[name, valueInWords(path.at(-1) ?? '', value)]];
  return Object.entries(value).flatMap(([key, each]) => pairsOf(each, [...path, key]));
}

function isNamed(value: object): boolean {
  const keys = Object.keys(value);
  return keys.length <= namedPropertiesMax && keys.includes('name') && (keys.includes('id') || keys.includes('guid'));
}
