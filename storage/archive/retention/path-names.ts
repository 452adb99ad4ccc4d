/**
 * Names of paths as policies compare them: a file system may compose letters in another way than whoever wrote the policy
 * did. Name by name, so that one name that is no UTF-8 takes nothing from the folders above it.
 */
import { isUtf8 } from 'node:buffer';
import { splitPath } from '../../../protocol/paths.ts';

/** Names of a path, composed; one that is no UTF-8 begins with a NUL, which no other can, and is compared as it is. */
export function composedNames(path: Buffer): string[] {
  return splitPath(path).map((name) =>
    isUtf8(name) ? name.toString().normalize('NFC') : `\0${name.toString('latin1')}`,
  );
}

/** Names that differ in nothing but their letters' case become one. */
export function anyCaseOf(name: string): string {
  // Upper then lower, so that 'ſ' and 's', 'ß' and 'ẞ' meet.
  return name.startsWith('\0') ? name : name.toUpperCase().toLowerCase().normalize('NFC');
}
