/** Repositories and tokens that users make for themselves, and the vault that comes with a repository. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { losing, type Person, Registering } from '../devices/registering/testing.ts';
import { ending, password, problemOf, signInWorld, type World } from '../sign-in/test-world.ts';
import { createOwnRepository, createOwnToken } from './own.ts';
import { drawGuid, readRepository } from './repositories.ts';
import { newResticToken } from './secrets.ts';
import { CreateOwnRepositoryRequest, CreateOwnTokenRequest } from './shapes.ts';

let world: World;
let registering: Registering;
let person: Person;
let session: number;
const address = '192.0.2.7';

beforeAll(async () => {
  world = await signInWorld();
  registering = new Registering(world);
});
afterAll(() => world?.close());
beforeEach(async () => {
  person = await registering.person();
  session = await person.session();
});

const asker = () => ({
  tenant: world.tenant,
  user: person.user,
  userName: person.name,
  session,
  actor: { tenant: world.tenant } as never,
});
const by = () => ({
  tenant: world.tenant,
  party: { kind: 'user' as const, id: person.user, name: person.name },
  address,
});

async function create(given: object = {}, directory = world.directory) {
  const drawn = { guid: drawGuid(), token: newResticToken() };
  const request = { ...CreateOwnRepositoryRequest.parse({ name: 'mine', password, ...given }), address };
  return createOwnRepository(directory, by(), asker(), request, drawn);
}

const token = (guid: string, given: object = {}) =>
  createOwnToken(
    world.directory,
    by(),
    asker(),
    { ...CreateOwnTokenRequest.parse({ password, ...given }), guid, address },
    newResticToken(),
  );

const repositories = () => world.query('SELECT name FROM devices WHERE user_id = $1', [person.user]);

describe('a user who makes a repository for themself', () => {
  test('gives their password, and the code of their second factor', async () => {
    for (const wrong of [{ password: 'wrong' }, { password: null }]) {
      const { code, extras } = await problemOf(create(wrong));
      expect([code, extras]).toEqual(['out_of_bounds', { field: 'password' }]);
    }
    expect(await repositories()).toEqual([]);
    expect((await create()).repository.user.id).toBe(person.user);
    const [recovery] = await person.enrol();
    session = await person.session(person.code());
    await person.laterOn();
    expect(await ending(create({ name: 'second' }))).toBe('second_factor_needed');
    expect(await ending(create({ name: 'second', code: recovery }))).toBe('done');
  });

  test('has one, when the answer to the COMMIT is lost', async () => {
    const directory = { ...world.directory, database: losing(world.database) };
    expect((await create({}, directory)).token.state).toBe('inForce');
    expect(await repositories()).toHaveLength(1);
  });

  test('makes tokens in the same way, of theirs alone', async () => {
    const { repository } = await create();
    expect(await ending(token(repository.guid, { password: 'wrong' }))).toBe('out_of_bounds');
    expect(await token(repository.guid, { mode: 'append' })).toMatchObject({ mode: 'append', createdBy: person.name });
    person = await registering.person();
    session = await person.session();
    expect(await ending(token(repository.guid))).toBe('not_found');
    expect(await ending(token('x'))).toBe('not_found');
  });
});

describe('the vault that came with a repository', () => {
  test('gets its key when a computer first registers, which goes into it', async () => {
    const { repository } = await create();
    expect(
      await world.query('SELECT 1 FROM vault_keys k JOIN vaults v USING (vault_id) WHERE v.user_id = $1', [
        person.user,
      ]),
    ).toEqual([]);
    const answer = await person.register();
    const [row] = await world.query<{ vault: number }>('SELECT vault_id AS vault FROM devices WHERE guid = $1', [
      repository.guid,
    ]);
    expect(answer.vault).toBe(row!.vault);
    expect(answer.vaultKey).toMatchObject({ level: 'standard', generation: 1 });
    const again = await person.register();
    expect(again.vaultKey).toEqual(answer.vaultKey);
  });

  test('takes no repository’s place: no computer is put there', async () => {
    const { repository } = await create();
    expect(await ending(person.register({ replace: repository.guid }))).toBe('not_found');
    expect((await readRepository(world.database, { tenant: world.tenant, guid: repository.guid })).state).toBe(
      'active',
    );
  });
});
