import { randomBytes } from 'node:crypto';
import { connect, type Server } from 'node:net';
import type { Server as HttpServer } from 'node:http';
import { basename, dirname, join } from 'node:path';
import { formatEndpoint } from '../model/address.js';
import type { ListenAddress } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { SocketFiles } from '../runtime/files.js';

/** How long answers under way may take when a server stops. */
const STOP_GRACE_MS = 1000;

/**
 * Makes the server that `create` gives listen on an address. Rejects with `LB_LISTEN_FAILED` where that is not possible,
 * in words that name `purpose` and the `key` of the configuration. Resolves with the port, also for port 0.
 */
export async function listenOn(
  create: () => HttpServer,
  { address, port }: ListenAddress,
  { purpose, key }: { readonly purpose: string; readonly key: string },
): Promise<number> {
  try {
    const server = create();
    await listening(server, () => server.listen({ host: address.text, port, exclusive: true }));
    const bound = server.address();
    return bound === null || typeof bound === 'string' ? port : bound.port;
  } catch (cause) {
    const found = errorCode(cause) ?? errorMessage(cause);
    const message = `Cannot listen for ${purpose} on ${formatEndpoint(address, port)} (${found}): "${key}" must be a free address and port of this machine`;
    throw new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

/** Stops listening, lets answers under way end, then closes what is left. Never rejects. */
export function closeServer(server: HttpServer): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}

function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    listen();
  });
}

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
      throw this.#failed(`whether another process listens there cannot be told (${refusal})`);
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
function bind(server: Server, path: string): Promise<void> {
  return listening(server, () => {
    const umask = process.umask(OWNER_ONLY_UMASK);
    try {
      server.listen({ path });
    } finally {
      process.umask(umask);
    }
  });
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
