import { connect, type Socket } from 'node:net';
import { errorCode } from '../../src/model/errors.js';
import { CAREFUL, readCarefully } from './careful-reading.js';
import { within } from './deadline.js';

export interface TcpTarget {
  readonly host: string;
  readonly port: number;
  readonly localAddress?: string;
}

/** How a connection ended, as its client saw it. */
export type Ending = 'open' | 'fin' | 'reset';

/** A client connection that asks and remembers how it ended. */
export class TcpClient {
  readonly socket: Socket;
  #received = '';
  #ending: Ending = 'open';
  readonly #waiting = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    readCarefully(socket, {
      chunk: (chunk) => {
        this.#received += chunk.toString('latin1');
        this.#news();
      },
      over: (ending) => {
        this.#ending = ending;
        this.#news();
      },
    });
  }

  static async connect(target: TcpTarget, timeoutMs = 5000): Promise<TcpClient> {
    const socket = connect({ ...target, ...CAREFUL, allowHalfOpen: true });
    const client = new TcpClient(socket);
    const connected = new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    await within(connected, timeoutMs, `connection to ${target.host}:${target.port}`);
    return client;
  }

  get ending(): Ending {
    return this.#ending;
  }

  get received(): string {
    return this.#received;
  }

  /** Sends a line and waits for what the echo makes of it: `nva-1: line`. Rejects if the connection ends first. */
  async ask(line: string, timeoutMs = 5000): Promise<string> {
    const already = this.#received.length;
    this.socket.write(line);
    return this.#when(
      () => {
        const fresh = this.#received.slice(already);
        if (fresh.includes(line)) return fresh;
        if (this.#ending !== 'open') throw new Error(`connection ended (${this.#ending})`);
        return undefined;
      },
      timeoutMs,
      `an answer to "${line}"`,
    );
  }

  /** Which backend answers: the echo's name. */
  async backend(timeoutMs = 5000): Promise<string> {
    const answer = await this.ask('who', timeoutMs);
    return answer.split(':')[0]!;
  }

  async ended(timeoutMs = 5000): Promise<Ending> {
    return this.#when(
      () => (this.#ending === 'open' ? undefined : this.#ending),
      timeoutMs,
      'the connection to end',
    );
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Looks now and at all that comes, until there is an answer. */
  #when<T>(look: () => T | undefined, timeoutMs: number, what: string): Promise<T> {
    const answered = new Promise<T>((resolve, reject) => {
      const check = (): void => {
        try {
          const answer = look();
          if (answer === undefined) return;
          resolve(answer);
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
        this.#waiting.delete(check);
      };
      this.#waiting.add(check);
      check();
    });
    return within(answered, timeoutMs, what);
  }

  #news(): void {
    for (const check of [...this.#waiting]) check();
  }
}

/** How a connection that says nothing ends; a RST may come before or after it counts as connected. */
export async function connectionEnding(target: TcpTarget): Promise<Ending> {
  try {
    const client = await TcpClient.connect(target);
    const ending = await client.ended();
    client.destroy();
    return ending;
  } catch (error) {
    if (errorCode(error) === 'ECONNRESET') return 'reset';
    throw error;
  }
}
