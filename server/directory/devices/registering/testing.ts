/** What the tests in this folder register with: a world to sign in to, people in it, and their phones. */
import { randomBytes } from 'node:crypto';
import { Secret } from 'otpauth';
import { type RegisterAnswer, RegisterRequest } from '../../../../protocol/messages.ts';
import type { Database } from '../../../../storage/catalog/database.ts';
import type { Directory } from '../../directory.ts';
import { generator, newRecoveryCodes } from '../../sign-in/second-factor/codes.ts';
import { beginSecondFactor, confirmSecondFactor, drawSecondFactor } from '../../sign-in/second-factor/second-factor.ts';
import { home, password, type World } from '../../sign-in/test-world.ts';
import { registerDevice } from '../register.ts';
import { makeOwnRegistrationCode } from './own-codes.ts';
import { makeRegistrationCode, newRegistrationCode } from './registration-codes.ts';
import { OwnRegistrationCodeRequest } from './shapes.ts';

export type Asked = Partial<RegisterRequest>;

export class Registering {
  readonly world: World;
  #made = 0;

  constructor(world: World) {
    this.world = world;
  }

  /** A new user with `password`. */
  async person(): Promise<Person> {
    const name = `person${++this.#made}`;
    return new Person(this.world, await this.world.addUser(name), name);
  }

  devicesOf = async ({ user }: Person): Promise<{ guid: string; state: string }[]> =>
    this.world.query('SELECT guid::text AS guid, state FROM devices WHERE user_id = $1 ORDER BY device_id', [user]);
}

export const newToken = (): string => randomBytes(32).toString('base64url');

/** As a server whose connection to its database is lost after each first COMMIT, which has happened. */
export function losing(database: Database): Database {
  return {
    ...database,
    transaction: async (work) => {
      await database.transaction(work);
      return database.transaction(work);
    },
  };
}

export class Person {
  readonly world: World;
  readonly user: number;
  readonly name: string;
  #secret = Buffer.alloc(0);

  constructor(world: World, user: number, name: string) {
    this.world = world;
    this.user = user;
    this.name = name;
  }

  get of() {
    return { tenant: this.world.tenant, user: this.user };
  }

  get signIn() {
    return { registrationKey: this.world.registrationKey, userName: this.name, password };
  }

  /** Registers by password, and by whatever else is given. */
  register(more: Asked = {}, directory: Directory = this.world.directory): Promise<RegisterAnswer> {
    return register(directory, { ...this.signIn, ...more });
  }

  /** @returns a code that an administrator has made for them */
  async makeCode(minutes = 60, as: object = {}): Promise<string> {
    const { tenant, root, child, database, by } = this.world;
    const grants = [{ role: 'Customer Cloud Admin' as const, scope: 'all' as const, organization: root }];
    const actor = { tenant, user: 999_998, organization: child, grants, ...as };
    const code = newRegistrationCode();
    await database.transaction((tx) =>
      makeRegistrationCode(tx, by, { ...this.of, actor, minutes, session: null }, code),
    );
    return code;
  }

  /** @returns a session of theirs */
  async session(code?: string): Promise<number> {
    return (await this.world.signIn(this.name, { code })).session;
  }

  /** @returns a code that they have made themself */
  async makeOwnCode(session: number, given: object = {}, directory: Directory = this.world.directory): Promise<string> {
    const actor = { tenant: this.world.tenant, user: this.user, organization: this.world.child, grants: [] };
    const asker = { ...this.of, userName: this.name, session, actor };
    const request = OwnRegistrationCodeRequest.parse({ password, ...given });
    return (await makeOwnRegistrationCode(directory, this.world.by, asker, request, home.address)).code;
  }

  /** @returns recovery codes */
  async enrol(): Promise<string[]> {
    const { world, of } = this;
    const drawn = await drawSecondFactor(world.directory, of, this.name);
    await world.database.transaction((tx) => beginSecondFactor(tx, world.by, of, drawn));
    this.#secret = Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes);
    const given = { of, session: 0, code: this.code() };
    const made = await confirmSecondFactor(world.directory, world.by, given, home.address, newRecoveryCodes());
    await this.laterOn();
    return made.recoveryCodes;
  }

  /** What their phone shows now, or some steps from now. */
  code(steps = 0): string {
    return generator(this.#secret).generate({ timestamp: Date.now() + steps * 30_000 });
  }

  /** As if time had passed: codes used so far do not count. */
  async laterOn(): Promise<void> {
    await this.world.query('UPDATE second_factors SET last_step = last_step - 10 WHERE user_id = $1', [this.user]);
  }
}

export function register(directory: Directory, asked: Asked): Promise<RegisterAnswer> {
  const device = { name: 'laptop', platform: 'linux', agentVersion: '0.1.0' };
  const request = RegisterRequest.parse({ device, vaultKey: { level: 'standard' }, ...asked });
  return registerDevice(directory, request, home.address);
}
