/** Restores over HTTP that end before their end: damage, and everything else that stops one; and how many there are at a time. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { h2, startTestServer, until } from '../../server/http/testing.ts';
import { damage, readZip } from '../../server/restoring/testing.ts';
import {
  actsOf,
  begun,
  big,
  closed,
  closeWorld,
  engine,
  fetched,
  hasEnded,
  holder,
  opened,
  openWorld,
  planned,
  show,
  text,
  world,
} from './restoring.ts';

beforeAll(openWorld, 60_000);
afterAll(closeWorld);

describe('damage', () => {
  test('a small file is left out, and named in the archive and in the history', async () => {
    const [hashes] = (await engine.back(
      { path: '/hurt/a', content: text('hurt') },
      { path: '/hurt/b', content: text('fine') },
    )) as [Buffer[]];
    await damage(engine, hashes[0]!, 'flip');
    const id = await planned(['/hurt']);
    const { answer, bytes } = await fetched(id);
    expect(answer.status).toBe(200);
    expect([...readZip(bytes).keys()]).toEqual(['hurt/b', 'RESTORE-INCOMPLETE.txt']);
    expect(await show(id)).toMatchObject({
      state: 'completed',
      done: { files: 1, leftOut: 1 },
      leftOutFirst: [{ path: '/hurt/a', reason: 'content_damaged' }],
    });
  });

  test.each(['HTTP/1.1', 'HTTP/2'])(
    'in the middle of a large one breaks it off, and the next try leaves it out (%s)',
    async (http) => {
      const name = http.replaceAll(/\W/g, '');
      const [hashes] = (await engine.back(
        { path: `/${name}/big`, content: randomBytes(9_000_000) },
        { path: `/${name}/z`, content: text('z') },
      )) as [Buffer[]];
      await damage(engine, hashes.at(-2)!, 'flip');
      const id = await planned([`/${name}`]);
      if (http === 'HTTP/1.1') await expect(fetched(id)).rejects.toThrow();
      else {
        const stream = opened(id);
        stream.resume();
        await closed(stream);
        expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR);
      }
      await hasEnded(id, 'broken');
      expect(await show(id)).toMatchObject({
        why: expect.stringMatching(/in the middle of a file/),
        brokeOffAt: [{ path: `/${name}/big`, reason: 'content_damaged' }],
      });
      const { bytes } = await fetched(id);
      expect([...readZip(bytes).keys()]).toEqual([`${name}/z`, 'RESTORE-INCOMPLETE.txt']);
      expect(await show(id)).toMatchObject({ state: 'completed', tries: 2, done: { files: 1, leftOut: 1 } });
      expect((await actsOf(id)).filter(({ action }) => action === 'restore.end').map(({ result }) => result)).toEqual([
        'failed',
        'done',
      ]);
    },
  );
});

describe('ends before its end, though its reader takes nothing, when', () => {
  test('it is cancelled', async () => {
    const id = await planned(['/big']);
    const stream = opened(id);
    await begun(id);
    expect((await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token })).json.state).toBe(
      'cancelled',
    );
    await closed(stream);
    expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR);
    await until(async () => (await actsOf(id)).some(({ action }) => action === 'restore.end'));
    const { state, done, why } = await show(id);
    expect([state, why, done.sentBytes > 0]).toEqual(['cancelled', 'cancelled by user holder', true]);
  });

  test('its reader goes', async () => {
    const id = await planned(['/big']);
    const stream = opened(id);
    await begun(id);
    stream.close(constants.NGHTTP2_CANCEL);
    await hasEnded(id, 'broken');
    const { why, done } = await show(id);
    expect([why, done.sentBytes > 0, done.sentBytes < big.length]).toEqual(['whoever fetched it has gone', true, true]);
    expect((await fetched(id)).bytes.length).toBeGreaterThan(big.length);
  });

  test('the session ends', async () => {
    const token = await world.signIn(world.tenant, holder.user);
    const id = await planned(['/big']);
    const stream = opened(id, { ...holder, token });
    await begun(id);
    await world.storage.rows(
      `UPDATE sessions SET ended_at = now() WHERE session_id = (SELECT max(session_id) FROM sessions WHERE user_id = $1)`,
      [holder.user],
    );
    await closed(stream);
    await hasEnded(id, 'refused');
    expect((await fetched(id)).answer.status).toBe(200);
  });

  test('the permission goes; an access token that is too old is no reason', async () => {
    const leaver = await world.person('Admin Restore Limited', { name: 'leaver' });
    const id = await planned(['/big'], { reason: 'a test' }, leaver);
    const stream = opened(id, leaver);
    const state = async () =>
      (
        await world.storage.rows<{ state: string; seen: Date; sent: number }>(
          'SELECT state, seen_at AS seen, sent_bytes AS sent FROM restore_requests WHERE restore_id = $1',
          [id],
        )
      )[0]!;
    await until(async () => (await state()).sent > 0);
    await world.storage.rows(
      `UPDATE access_tokens SET expires_at = now() WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = $1)`,
      [leaver.user],
    );
    const { seen } = await state();
    await until(async () => Number((await state()).seen) > Number(seen) + 150);
    expect((await state()).state).toBe('running');
    await world.storage.rows(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore Limited'`, [
      leaver.user,
    ]);
    await closed(stream);
    await until(async () => (await state()).state === 'refused');
  });

  test('it takes nothing for too long', async () => {
    const id = await planned(['/big']);
    const stream = opened(id);
    await closed(stream);
    await hasEnded(id, 'broken');
    expect(await show(id)).toMatchObject({ why: 'whoever fetched it took no more of it' });
  });
});

describe('on another replica', () => {
  const replica = () =>
    startTestServer({
      storage: world.storage,
      directory: world.directory,
      cleartext: true,
      settings: { restoreWindowBytes: 4_000_000, restoreCheckMs: 50 },
    });

  test('one that is sent there is cancelled from here', async () => {
    const other = await replica();
    const there = await h2(other);
    const id = await planned(['/big']);
    const stream = opened(id, holder, there);
    await begun(id);
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    await closed(stream);
    expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR);
    there.destroy();
    await other.shutDown({ leaveMs: 0, drainMs: 1_000 });
  });

  test('a server that shuts down waits for one that is sent, to its end', async () => {
    const other = await replica();
    const there = await h2(other);
    const id = await planned(['/big']);
    const stream = opened(id, holder, there);
    await begun(id);
    const down = other.shutDown({ leaveMs: 0, drainMs: 20_000 });
    let bytes = 0;
    stream.on('data', (part: Buffer) => {
      bytes += part.byteLength;
    });
    stream.resume();
    await closed(stream);
    expect([stream.rstCode, (await down).cut]).toEqual([constants.NGHTTP2_NO_ERROR, 0]);
    expect(await show(id)).toMatchObject({ state: 'completed', done: { sentBytes: bytes } });
  });
});

test('one person has two places, and more are told to come back', async () => {
  const ids = await Promise.all([1, 2, 3].map(() => planned(['/big'])));
  const streams = ids.slice(0, 2).map((id) => opened(id));
  for (const id of ids.slice(0, 2)) await begun(id);
  const { answer, bytes } = await fetched(ids[2]!);
  expect([answer.status, JSON.parse(bytes.toString()).code, answer.headers.get('retry-after')]).toEqual([
    503,
    'overloaded',
    '1',
  ]);
  for (const stream of streams) stream.destroy();
  for (const id of ids.slice(0, 2)) await hasEnded(id, 'broken');
  expect((await fetched(ids[2]!)).answer.status).toBe(200);
});
