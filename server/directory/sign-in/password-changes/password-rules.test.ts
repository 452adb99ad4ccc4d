import { describe, expect, test } from '@jest/globals';
import { assertPassword } from './password-rules.ts';

const known = { userName: 'anna.schmidt', email: 'anna@werkstatt.example', tenantName: 'Werkstatt Schmidt' };
const faultOf = (password: string): string | null => {
  try {
    assertPassword(password, known, 'newPassword');
    return null;
  } catch (error) {
    expect(error).toMatchObject({ code: 'out_of_bounds', extras: { field: 'newPassword' } });
    return (error as Error).message;
  }
};

describe('a new password', () => {
  test.each([
    ['twelve characters', 'kx7 brolga q'],
    ['words', 'purple tram over lisbon'],
    ['no digit, capital or sign', 'brolgakestrelwren'],
    ['another alphabet', 'зелёный трамвай'],
    ['128 characters', 'purple tram over lisbon, '.repeat(6).slice(0, 128)],
    ['its user’s name and enough besides', 'anna walks with two llamas'],
    ['a common one with more', 'password1234 and a brolga'],
  ])('may be %s', (_what, password) => {
    expect(faultOf(password)).toBeNull();
  });

  test.each([
    ['eleven characters', 'kx7 brolga ', 'at least 12'],
    ['eleven characters in many bytes', 'ééééééé brä', 'at least 12'],
    ['twelve code points that are eleven characters', 'kx7 brolge\u0301 ', 'at least 12'],
    ['129 characters', 'purple tram over lisbon, '.repeat(6).slice(0, 129), 'at most 128'],
    ['half a character', 'kx7 brolga q\ud800', 'no text'],
    ['among the most common', 'Password1234', 'most common'],
    ['among the most common, along the keys', '1qaz2wsx3edc', 'most common'],
    ['one character', 'aaaaaaaaaaaa', 'repeats'],
    ['three characters over and over', 'abcabcabcabc', 'repeats'],
    ['four characters and a bit over and over', 'tramtramtramt', 'repeats'],
    ['a row of the keyboard', 'qwertyuiopas', 'sequence'],
    ['a row of the keyboard, backwards', 'poiuytrewqmn', 'sequence'],
    ['digits', '678901234567', 'sequence'],
    ['the alphabet', 'CDEFGHIJKLMNOP', 'sequence'],
    ['the user’s name', 'anna.schmidt1', 'little more'],
    ['the name twice', 'annaschmidtanna', 'little more'],
    ['the mail address', 'anna@werkstatt.example', 'little more'],
    ['the tenant', 'Werkstatt2026', 'little more'],
    ['the tenant and the product', 'schmidt-holdfast1', 'little more'],
  ])('is not %s', (_what, password, says) => {
    expect(faultOf(password)).toContain(says);
  });
});
