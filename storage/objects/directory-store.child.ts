/**
 * The process that `directory-store.test.ts` kills or starves. Arguments: what to do, the store's folder, a prefix.
 */
import { openDirectoryStore } from './directory-store.ts';

const [task, path, prefix] = process.argv.slice(2);
const store = await openDirectoryStore({ path: path!, create: true });

if (task === 'fill') {
  await store.put('small', { length: 4, chunks: [Buffer.from('fits')] });
  const chunks = Array.from({ length: 64 }, () => Buffer.alloc(64 * 1024, 1));
  await store.put('large', { length: 4 * 1024 * 1024, chunks }).then(
    () => console.log('stored'),
    (error: NodeJS.ErrnoException) => console.log(error.name, error.code),
  );
} else {
  // Until killed. A key tells its object's length; every key that is printed has been acknowledged.
  process.stdout.write('ready\n');
  const writer = async (lane: number) => {
    for (let i = 0; ; i++) {
      const length = 100_000 + ((i * 7_919 + lane * 104_729) % 1_500_000);
      const key = `${prefix}/${lane}-${i}.${length}`;
      const bytes = Buffer.alloc(length, (i % 255) + 1);
      await store.put(key, { length, chunks: [bytes.subarray(0, 50_000), bytes.subarray(50_000)] });
      process.stdout.write(`${key}\n`);
    }
  };
  await Promise.all(Array.from({ length: 4 }, (_, lane) => writer(lane)));
}
