/** Answers as messages of the protocol. */
import type { z } from 'zod';
import { decodeMessage } from '../../protocol/wire.ts';
import { NotAServer } from './errors.ts';
import type { Answer } from './transport.ts';

/** An answer that is not what the protocol says does not become so by asking again: it is told as what it is. */
export function read<T extends z.ZodType>(schema: T, answer: Answer): z.infer<T> {
  try {
    return decodeMessage(schema, answer.body);
  } catch (error) {
    throw new NotAServer(`the server's answer could not be understood: ${(error as Error).message}`, { cause: error });
  }
}
