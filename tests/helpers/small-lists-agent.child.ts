/**
 * The agent's command line, cutting and naming small files as it does large ones: blocks of some KiB, and lists from
 * three blocks on. What it sends and reads back is of the same kind.
 */
import { chunking, listing } from '../../protocol/limits.ts';

const KiB = 1024;
Object.assign(chunking[0], { minBytes: 16 * KiB, averageBytes: 64 * KiB, maxBytes: 256 * KiB });
Object.assign(listing, { directBlocksMax: 2, minBlocks: 2, averageBlocks: 4, maxBlocks: 8 });
await import('../../agent/main.ts');
