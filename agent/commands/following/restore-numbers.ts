/** What restores are called: by the number that the server shows to people. Older servers tell that of the command only. */
import type { ChannelFrame } from '../../../protocol/commands.ts';

/** More than are open at a time; what was told longest ago is forgotten. */
const numbersMax = 1_000;

export class RestoreNumbers {
  readonly #numbers = new Map<number, number>();

  hear(frame: ChannelFrame): void {
    if (frame.type !== 'command' || frame.command.kind !== 'restore' || frame.command.restore === undefined) return;
    const { id, restore } = frame.command;
    this.#numbers.delete(id); // or it would keep its old place
    this.#numbers.set(id, restore);
    if (this.#numbers.size > numbersMax) this.#numbers.delete(this.#numbers.keys().next().value!);
  }

  /** For scripts. @returns nothing of a restore whose number was not told */
  of(command: number): { restore?: number } {
    const restore = this.#numbers.get(command);
    return restore === undefined ? {} : { restore };
  }

  inWords(command: number): string {
    const { restore } = this.of(command);
    return restore === undefined ? `restore of command ${command}` : `restore ${restore}`;
  }
}
