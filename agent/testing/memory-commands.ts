/** The commands' part of the server in memory: channels that stay open, and what devices say of what they were told. */
import type { ServerHttp2Stream } from 'node:http2';
import {
  type ChannelFrame,
  type Command,
  CommandAnswerRequest,
  CommandEndRequest,
  CommandProgressRequest,
} from '../../protocol/commands.ts';
import { Problem } from '../../protocol/problems.ts';
import { decodeMessage, encodeFrame, encodeMessage } from '../../protocol/wire.ts';

export class MemoryCommands {
  heartbeatSeconds = 20;
  /** What a device that connects is told. Ended ones leave it. */
  open: Command[] = [];
  progress: { id: number; request: CommandProgressRequest }[] = [];
  ends: { id: number; request: CommandEndRequest }[] = [];
  answers: { id: number; request: CommandAnswerRequest }[] = [];
  /** The answer to progress. */
  go: (id: number) => 'on' | 'cancelled' | 'gone' = () => 'on';
  /** How many channels there have been. */
  connected = 0;
  readonly channels = new Set<ServerHttp2Stream>();

  listen(stream: ServerHttp2Stream, once = false): void {
    this.connected++;
    stream.respond({ ':status': 200 });
    stream.write(encodeFrame({ type: 'hello', heartbeatSeconds: this.heartbeatSeconds }));
    for (const command of this.open) stream.write(encodeFrame({ type: 'command', command }));
    if (once) return void stream.end();
    this.channels.add(stream);
    stream.on('close', () => this.channels.delete(stream));
  }

  /** Says something on every channel; a command stays open until it has ended. */
  tell(frame: ChannelFrame): void {
    if (frame.type === 'command') this.open.push(frame.command);
    for (const stream of this.channels) stream.write(encodeFrame(frame));
  }

  endChannels(): void {
    for (const stream of this.channels) stream.end();
  }

  /** @param what 'progress', 'end' or 'answer' */
  heard(id: number, what: string, body: Buffer): Buffer {
    if (what === 'progress') {
      this.progress.push({ id, request: decodeMessage(CommandProgressRequest, body) });
      return encodeMessage({ go: this.go(id) });
    }
    this.open = this.open.filter((command) => command.id !== id);
    if (what === 'end') this.ends.push({ id, request: decodeMessage(CommandEndRequest, body) });
    else if (what === 'answer') this.answers.push({ id, request: decodeMessage(CommandAnswerRequest, body) });
    else throw new Problem('not_found', what);
    return encodeMessage({});
  }
}
