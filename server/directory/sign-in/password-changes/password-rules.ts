/**
 * What a new password has to be: long, and not one of those that are tried first (NIST SP 800-63B, 5.1.1.2). No rules of
 * composition: they make passwords that are hard to remember and easy to guess. Passwords that are there stay.
 */
import { Problem } from '../../../../protocol/problems.ts';

export const passwordCharactersMin = 12;
export const passwordCharactersMax = 128;
/** What has to be left of a password without what everybody knows of its user. */
const ownCharactersMin = 8;
/** Fewer different characters than this is a repetition. */
const differentCharactersMin = 5;

/**
 * The most common ones of at least twelve characters, as far as the rules on repetitions and sequences do not refuse them
 * anyway. Compared without regard to case.
 */
const common = new Set(
  `adminadmin123 administrator administrator1 administrator123 asdfghjkl123 basketball123 blink182blink changeme1234
   changemenow1 changethis123 contrasena123 correcthorse correcthorsebatterystaple defaultpassword football1234
   footballfootball godisgood123 helloworld12 helloworld123 iloveyou1234 iloveyouforever iloveyousomuch
   jesuschrist1 letmein12345 letmeinletmein liverpoolfc1 manchesterunited mypassword12 mypassword123 newpassword1
   newpassword123 nopassword123 onetwothreefour p@ssw0rd1234 p@ssw0rd12345 passw0rd1234 passw0rd12345 passwort1234
   password1234 password12345 password123456 password2024 password2025 password2026 passwordpassword
   passwordpassword1 princess1234 qwertyuiop12 qwertyuiop123 sunshine1234 superman1234 supersecret1 supersecret123
   temppassword1 testpassword test12345678 testtesttest thisismypassword trustno1trustno1 unbelievable welcome12345
   welcome123456 welcomewelcome whatever1234 1q2w3e4r5t6y 1q2w3e4r5t6y7u 1q2w3e4r5t6y7u8i 1qaz2wsx3edc 1qaz2wsx3edc4rfv
   q1w2e3r4t5y6 qazwsxedcrfv qazwsxedcrfvtgb zaq12wsxcde3 zaq1xsw2cde3 winter202526 summer202526`.split(/\s+/),
);

/** Rows of keyboards and alphabets that people walk along. */
const walks = ['0123456789', 'abcdefghijklmnopqrstuvwxyz', 'qwertyuiopasdfghjklzxcvbnm', 'qwertzuiopasdfghjklyxcvbnm'];

/** What everybody who knows the user knows. */
export interface KnownWords {
  userName: string;
  email: string | null;
  tenantName: string | null;
}

/**
 * @param field the input it came in
 * @throws Problem out_of_bounds { field }, in words for whoever chooses it
 */
export function assertPassword(password: string, known: KnownWords, field: string): void {
  const fault = faultOf(password, known);
  if (fault) throw new Problem('out_of_bounds', fault, { field });
}

function faultOf(password: string, known: KnownWords): string | null {
  // As it is hashed; a character is what a person takes for one.
  const normal = password.normalize('NFC');
  const length = [...normal].length;
  if (!normal.isWellFormed()) return 'the password is no text';
  if (length < passwordCharactersMin) return `a password has at least ${passwordCharactersMin} characters`;
  if (length > passwordCharactersMax) return `a password has at most ${passwordCharactersMax} characters`;

  const lower = normal.toLowerCase();
  if (common.has(lower)) return 'this is one of the most common passwords';
  if (new Set(lower).size < differentCharactersMin) return 'the password repeats few characters';
  if (isRepetition(lower)) return 'the password repeats a few characters';
  if (walks.some((walk) => isAlong(lower, walk))) return 'the password is a sequence of keys or letters';
  if ([...withoutKnown(lower, known)].length < ownCharactersMin)
    return 'the password is little more than the name, mail address or tenant';
  return null;
}

/** At most four characters over and over: abcabcabcabc. */
function isRepetition(text: string): boolean {
  return [1, 2, 3, 4].some(
    (size) =>
      text ===
      text
        .slice(0, size)
        .repeat(Math.ceil(text.length / size))
        .slice(0, text.length),
  );
}

/** One walk along the keys from wherever, forward or back, and around. */
function isAlong(text: string, walk: string): boolean {
  const around = walk.repeat(Math.ceil(passwordCharactersMax / walk.length) + 1);
  return around.includes(text) || [...around].reverse().join('').includes(text);
}

function withoutKnown(lower: string, { userName, email, tenantName }: KnownWords): string {
  const words = [userName, email, email?.split('@')[0], tenantName, 'holdfast']
    .flatMap((word) => (word ? [word, ...word.split(/[^\p{L}\p{N}]+/u)] : []))
    .map((word) => word.normalize('NFC').toLowerCase())
    // Shorter ones are in every text.
    .filter((word) => word.length >= 3)
    .sort((a, b) => b.length - a.length);
  return words.reduce((left, word) => left.replaceAll(word, ''), lower);
}
