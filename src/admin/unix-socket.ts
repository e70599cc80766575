import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { SocketFiles } from '../runtime/files.js';

/** sun_path of Linux holds 108 bytes, one of them the zero at the end (unix(7)). */
const MAX_PATH_BYTES = 107;

const CONNECT_TIMEOUT_MS = 2000;

/** Only the owner may connect: that takes write permission (unix(7)). */
const OWNER_ONLY_UMASK = 0o177;

/**
 * Has a server listen on a Unix socket. It binds another name beside the path, with mode 0600 from the first moment,
 * which is then renamed: the path never lacks a listener, and when the server closes, libuv removes the name that was
 * bound, not the socket of a successor.
 */
export class UnixSocketListener {
  readonly #files: SocketFiles;
  readonly #path: string;
  readonly #takeOver: boolean;
  #ownId: string | undefined;

  /** `takeOver`: takes the path from a process that still answers there and hands over to this one. */
  constructor(files: SocketFiles, options: { readonly path: string; readonly takeOver?: boolean }) {
    this.#files = files;
    this.#path = options.path;
    this.#takeOver = options.takeOver ?? false;
  }

  /**
   * Rejects with `LB_LISTEN_FAILED` where the path is too long, is no socket, or another process answers on it. A socket
   * that does not answer is replaced.
   */
  async listen(server: Server): Promise<void> {
    if (Buffer.byteLength(this.#path) > MAX_PATH_BYTES) {
      throw this.#failed(`it has ${Buffer.byteLength(this.#path)} bytes, must be at most ${MAX_PATH_BYTES}`);
    }
    try {
      await this.#assertFree();
      const temporary = temporaryName(this.#path);
      await bind(server, temporary);
      this.#ownId = (await this.#files.identify(temporary))?.id;
      await this.#files.rename(temporary, this.#path);
    } catch (cause) {
      if (cause instanceof BalancerError) throw cause;
      throw this.#failed(errorCode(cause) ?? errorMessage(cause), cause);
    }
  }

  /** Removes the socket, unless another process has taken the path. Never rejects. */
  async release(): Promise<void> {
    const ownId = this.#ownId;
    this.#ownId = undefined;
    if (ownId === undefined) return;
    try {
      if ((await this.#files.identify(this.#path))?.id === ownId) await this.#files.remove(this.#path);
    } catch {
      // A socket that does not answer is replaced by the next listener.
    }
  }

  async #assertFree(): Promise<void> {
    const found = await this.#files.identify(this.#path);
    if (found === undefined) return;
    if (!found.isSocket) throw this.#failed('there is something else that is no socket');
    if (this.#takeOver) return;
    const refusal = await connectionRefusal(this.#path);
    if (refusal === undefined) throw this.#failed('another process answers there');
    // Refused: bound once, and closed since. Everything else, a full backlog (EAGAIN) too, is no proof of that.
    if (refusal !== 'ECONNREFUSED' && refusal !== 'ENOENT') {
      throw this.#failed(`another process may be listening there (${refusal})`);
    }
  }

  #failed(found: string, cause?: unknown): BalancerError {
    const message = `Cannot listen for the admin API on "${this.#path}": ${found}; "admin.socket" must be a path where a Unix socket can be made`;
    return new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

/** A name in the same folder that is no longer than the path, or short. */
function temporaryName(path: string): string {
  const room = MAX_PATH_BYTES - Buffer.byteLength(path) + Buffer.byteLength(basename(path));
  return join(dirname(path), `.${randomBytes(8).toString('hex')}`.slice(0, room));
}

/** Libuv binds within the call, so nothing else of this thread is made with this umask. */
async function bind(server: Server, path: string): Promise<void> {
  const umask = process.umask(OWNER_ONLY_UMASK);
  try {
    server.listen({ path });
  } finally {
    process.umask(umask);
  }
  await once(server, 'listening');
}

/** The system's code; undefined: a process answers. */
function connectionRefusal(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: CONNECT_TIMEOUT_MS });
    const settle = (refusal: string | undefined): void => {
      socket.destroy();
      resolve(refusal);
    };
    socket.once('connect', () => settle(undefined));
    socket.once('timeout', () => settle('ETIMEDOUT'));
    socket.on('error', (error) => settle(errorCode(error) ?? errorMessage(error)));
  });
}
