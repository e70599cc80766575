import { connect, type Socket } from 'node:net';
import { errorCode } from '../../src/model/errors.js';
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

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => (this.#received += chunk.toString('latin1')));
    socket.on('end', () => {
      if (this.#ending === 'open') this.#ending = 'fin';
    });
    socket.on('error', () => (this.#ending = 'reset'));
  }

  static async connect(target: TcpTarget, timeoutMs = 5000): Promise<TcpClient> {
    const socket = connect({ ...target, allowHalfOpen: true });
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
    const answered = new Promise<string>((resolve, reject) => {
      const look = (): void => {
        const fresh = this.#received.slice(already);
        if (fresh.includes(line)) settle(() => resolve(fresh));
      };
      const gone = (): void => settle(() => reject(new Error(`connection ended (${this.#ending})`)));
      const settle = (finish: () => void): void => {
        this.socket.off('data', look).off('end', gone).off('close', gone);
        finish();
      };
      this.socket.on('data', look).on('end', gone).on('close', gone);
    });
    this.socket.write(line);
    return within(answered, timeoutMs, `an answer to "${line}"`);
  }

  /** Which backend answers: the echo's name. */
  async backend(timeoutMs = 5000): Promise<string> {
    const answer = await this.ask('who', timeoutMs);
    return answer.split(':')[0]!;
  }

  async ended(timeoutMs = 5000): Promise<Ending> {
    if (this.#ending === 'open') {
      const over = new Promise<void>((resolve) => {
        this.socket.once('end', resolve).once('close', () => resolve());
      });
      await within(over, timeoutMs, 'the connection to end');
    }
    return this.#ending;
  }

  destroy(): void {
    this.socket.destroy();
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
