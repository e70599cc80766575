import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Outcome } from './commands.js';
import { within } from './deadline.js';

const RUN_COMMANDS = join(process.cwd(), 'test', 'support', 'run-commands.pl');

/**
 * A small process that runs commands, in a network namespace say: it forks in a tenth of the time that this process
 * takes, and need not enter the namespace for each. Needs perl. Commands run side by side. It does not keep this
 * process alive; whoever starts it ends it.
 */
export class Shell {
  readonly child: ChildProcess;
  readonly #answers = new Map<number, (outcome: Outcome) => void>();
  readonly #ended: Promise<never>;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** What the next answer takes at least. */
  #wantedBytes = 0;
  #requests = 0;

  /** @param prefix what comes before its command line, such as `ip netns exec somewhere` */
  constructor(prefix: readonly string[]) {
    const [program, ...args] = [...prefix, 'perl', RUN_COMMANDS];
    // Messages are matched: they must not be translated.
    const env = { ...process.env, LC_ALL: 'C' };
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
    this.child.stdin?.on('error', () => undefined);
    this.child.stdout?.on('data', (chunk: Buffer) => this.#take(chunk));
    this.#ended = once(this.child, 'exit').then(() =>
      Promise.reject(Object.assign(new Error('The shell has ended'), { code: 'EPIPE' })),
    );
    this.#ended.catch(() => undefined);
  }

  /** Runs a program to its end, whatever its exit code. Ends the shell when it takes too long. */
  async run(
    words: readonly string[],
    { input = '', timeoutMs = 10_000 }: { readonly input?: string; readonly timeoutMs?: number } = {},
  ): Promise<Outcome> {
    const id = ++this.#requests;
    const [command, text] = [Buffer.from(words.map((word) => `${word}\0`).join('')), Buffer.from(input)];
    const answered = new Promise<Outcome>((resolve) => this.#answers.set(id, resolve));
    this.child.stdin?.write(
      Buffer.concat([Buffer.from(`${id} ${command.length} ${text.length}\n`), command, text]),
    );
    try {
      return await within(Promise.race([answered, this.#ended]), timeoutMs, `${words.join(' ')} to end`);
    } finally {
      if (this.#answers.delete(id)) this.end();
    }
  }

  /** And with it what it runs, if that heeds its input or its output. */
  end(): void {
    this.child.kill('SIGKILL');
  }

  #take(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    while (this.#receivedBytes > 0 && this.#receivedBytes >= this.#wantedBytes && this.#next());
  }

  /** Whether there was a whole answer. */
  #next(): boolean {
    const all = Buffer.concat(this.#received);
    this.#received = [all];
    const headEnd = all.indexOf('\n') + 1;
    if (headEnd === 0) return false;
    const [id = 0, status = 0, outputBytes = 0, errorBytes = 0] = all
      .toString('latin1', 0, headEnd)
      .split(' ')
      .map(Number);
    this.#wantedBytes = headEnd + outputBytes + errorBytes;
    if (all.length < this.#wantedBytes) return false;
    const outputEnd = headEnd + outputBytes;
    const outcome = {
      // wait(2): the exit code is in the second byte, the signal in the first.
      code: (status & 0x7f) === 0 ? status >> 8 : null,
      stdout: all.toString('utf8', headEnd, outputEnd),
      stderr: all.toString('utf8', outputEnd, this.#wantedBytes),
    };
    this.#received = [all.subarray(this.#wantedBytes)];
    this.#receivedBytes = all.length - this.#wantedBytes;
    this.#wantedBytes = 0;
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    answer?.(outcome);
    return true;
  }
}
