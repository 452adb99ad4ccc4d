/** Secrets that people copy by hand: registration keys and first passwords. */
import { randomInt } from 'node:crypto';

/** Without 0, 1, I and O, which are taken for one another. 32 of them: 5 bits each. */
const letters = '23456789ABCDEFGHJKLMNPQRSTUVWXYZ';

/** XXXX-XXXX-XXXX-XXXX: 80 random bits. */
export function newRegistrationKey(): string {
  return Array.from({ length: 4 }, () => randomLetters(4)).join('-');
}

export function isRegistrationKey(text: string): boolean {
  return new RegExp(`^([${letters}]{4}-){3}[${letters}]{4}$`).test(text);
}

/** 24 letters and digits: 120 random bits. */
export function newPassword(): string {
  return randomLetters(24);
}

function randomLetters(count: number): string {
  return Array.from({ length: count }, () => letters[randomInt(letters.length)]).join('');
}
