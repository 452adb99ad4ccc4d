/** What a device is told to do, and what it says of it: one long answer of frames, and short requests beside it. */
import type { z } from 'zod';
import {
  ChannelFrame,
  type CommandAnswerRequest,
  type CommandEndRequest,
  CommandProgressAnswer,
  type CommandProgressRequest,
} from '../../protocol/commands.ts';
import { EmptyAnswer } from '../../protocol/messages.ts';
import { decodeFrames, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { read } from './read-answer.ts';
import type { Transport } from './transport.ts';

export class CommandCalls {
  readonly #transport: Transport;
  readonly #auth: Record<string, string>;

  constructor(transport: Transport, auth: Record<string, string>) {
    this.#transport = transport;
    this.#auth = auth;
  }

  /**
   * What the server says from now on, until it ends the answer or the connection breaks. Asked for once: whoever listens
   * asks again. Silence is for the caller to notice; a frame is at most limits.frameBytesMax.
   * @param options.once what waits for this device, and no more
   * @throws Problem not_found from a server that sends no commands; ConnectionLost, and Problem malformed_request for what
   *   was cut short or is no frame
   */
  async listen({ once, signal }: { once: boolean; signal: AbortSignal }): Promise<AsyncGenerator<ChannelFrame>> {
    const path = `/v1/self/commands${once ? '?once=1' : ''}`;
    const request = { method: 'GET', path, headers: this.#auth, signal } as const;
    const answer = await this.#transport.stream({ ...request, once: true, idleTimeoutMs: 0 });
    return decodeFrames(ChannelFrame, answer.body);
  }

  /** Asked once: the next one says more. @throws Problem, ConnectionLost */
  progress(id: number, request: CommandProgressRequest, signal?: AbortSignal): Promise<CommandProgressAnswer> {
    return this.#post(`/v1/self/commands/${id}/progress`, request, CommandProgressAnswer, { once: true, signal });
  }

  /** @throws Problem not_found when the server knows of no such command of this device */
  async end(id: number, request: CommandEndRequest, signal?: AbortSignal): Promise<void> {
    await this.#post(`/v1/self/commands/${id}/end`, request, EmptyAnswer, { once: true, signal });
  }

  /** @throws Problem not_found when nobody waits for it any more */
  async answer(id: number, request: CommandAnswerRequest, signal?: AbortSignal): Promise<void> {
    await this.#post(`/v1/self/commands/${id}/answer`, request, EmptyAnswer, { once: true, signal });
  }

  async #post<T extends z.ZodType>(
    path: string,
    message: object,
    schema: T,
    options: { once: boolean; signal?: AbortSignal | undefined },
  ): Promise<z.infer<T>> {
    const headers = { ...this.#auth, 'content-type': msgpackType };
    const body = [encodeMessage(message)];
    return read(schema, await this.#transport.request({ method: 'POST', path, headers, body, ...options }));
  }
}
