/** How commands talk to people: tables, sizes, and names that cannot talk to the terminal themselves. */

/** C0 and C1 control characters, line separators and what turns the direction of text around. */
const unprintable = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** Names come from devices: what would steer a terminal is shown as its code. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`);
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1536 is `1.5 KiB`. Negative numbers, which counters may show for a moment, keep their sign. */
export function bytesInWords(bytes: number): string {
  const unit = bytes === 0 ? 0 : Math.min(Math.floor(Math.log2(Math.abs(bytes)) / 10), units.length - 1);
  const value = bytes / 1024 ** Math.max(unit, 0);
  return `${unit <= 0 ? Math.round(value) : value.toFixed(1)} ${units[Math.max(unit, 0)]}`;
}

/** `1 file`, `2 files`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/**
 * Lines of a table whose columns are as wide as they need to be. Columns of numbers are aligned to the right.
 * @param head a name that begins with `>` aligns its column to the right
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const right = head.map((name) => name.startsWith('>'));
  const cells = [head.map((name) => name.replace(/^>/, '')), ...rows.map((row) => row.map(printable))];
  const widths = head.map((_, i) => Math.max(...cells.map((row) => (row[i] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (right[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join('  ');
  return cells.map((row) => line(row).trimEnd());
}

/** `2026-01-02 03:04:05Z` of an ISO 8601 moment; `never` of none. */
export function momentInWords(iso: string | null): string {
  return iso === null ? 'never' : iso.replace('T', ' ').replace(/\.\d+Z$/, 'Z');
}
