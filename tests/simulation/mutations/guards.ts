/** Every guard, in the order in which they are taken out. */
import { storingGuards } from './commit-and-upload.ts';
import { deletingGuards } from './deleting.ts';
import type { Guard } from './guard.ts';
import { bucketGuards } from './store-and-fence.ts';

export const guards: Guard[] = [...storingGuards, ...deletingGuards, ...bucketGuards];
