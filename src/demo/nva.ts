import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { formatEndpoint, type IpAddress, type Protocol } from '../model/address.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import { portsOf, type PortSet } from '../model/ports.js';

export interface SampleNvaOptions {
  readonly name: string;
  readonly address: IpAddress;
  /** Served over TCP and UDP. */
  readonly ports: PortSet;
  /** 0: a free one. Served over TCP for health, also where it is in `ports`. */
  readonly healthPort: number;
}

/**
 * A network virtual appliance to try haports with: on each of its ports it answers TCP and UDP with its name. It
 * owns its sockets from `start` to `stop`.
 */
export class SampleNva {
  readonly #options: SampleNvaOptions;
  readonly #health: HttpServer;
  readonly #tcp: Server[] = [];
  readonly #udp: DatagramSocket[] = [];
  readonly #connections = new Set<Socket>();

  constructor(options: SampleNvaOptions) {
    this.#options = options;
    this.#health = createNvaHealthServer(options.name);
  }

  /** The port of the health endpoint once started. */
  get healthPort(): number {
    const bound = this.#health.address() as AddressInfo | null;
    return bound?.port ?? this.#options.healthPort;
  }

  /** Opens everything, or rejects with `LB_LISTEN_FAILED` and leaves nothing open. */
  async start(): Promise<void> {
    const { ports, healthPort } = this.#options;
    try {
      await this.#listen(this.#health, 'tcp', healthPort);
      for (const port of portsOf(ports)) {
        if (port !== this.healthPort) await this.#listenTcp(port);
        await this.#listenUdp(port);
      }
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Closes everything at once, connections included. Idempotent. */
  async stop(): Promise<void> {
    for (const connection of this.#connections) connection.destroy();
    this.#health.closeAllConnections();
    const closed = [this.#health, ...this.#tcp, ...this.#udp.splice(0)].map(
      (socket) =>
        new Promise<void>((resolve) => {
          if ('listening' in socket && !socket.listening) resolve();
          else socket.close(() => resolve());
        }),
    );
    this.#tcp.length = 0;
    await Promise.all(closed);
  }

  async #listenTcp(port: number): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#connections.add(socket);
      socket.once('close', () => this.#connections.delete(socket));
      serveNvaConnection(this.#options.name, socket);
    });
    await this.#listen(server, 'tcp', port);
    this.#tcp.push(server);
  }

  async #listenUdp(port: number): Promise<void> {
    try {
      this.#udp.push(await openNvaUdp({ name: this.#options.name, address: this.#options.address, port }));
    } catch (cause) {
      throw this.#listenError('udp', port, cause);
    }
  }

  async #listen(server: Server, protocol: Protocol, port: number): Promise<void> {
    try {
      server.listen({ host: this.#options.address.text, port, exclusive: true });
      await once(server, 'listening');
      server.on('error', () => undefined);
    } catch (cause) {
      throw this.#listenError(protocol, port, cause);
    }
  }

  #listenError(protocol: Protocol, port: number, cause: unknown): BalancerError {
    const { name, address } = this.#options;
    const where = `${protocol} ${formatEndpoint(address, port)}`;
    const message = `Sample NVA "${name}" cannot listen on ${where}: ${errorCode(cause) ?? errorMessage(cause)}`;
    return new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

/** Whether the first bytes of a stream start an HTTP request; `unclear`: more bytes are needed to tell. */
export function looksLikeHttp(head: string): 'yes' | 'no' | 'unclear' {
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'];
  for (const method of methods) {
    const start = `${method} /`;
    if (head.startsWith(start)) return 'yes';
    if (start.startsWith(head)) return 'unclear';
  }
  return 'no';
}

/** Where a request came in, and from whom as the NVA sees it: the balancer's address, unless that is transparent. */
export interface HttpVisit {
  readonly port: number;
  readonly clientAddress: string;
}

/** The whole answer, as text for the wire, to a request whose head is given. */
export function httpAnswer(name: string, head: string, visit: HttpVisit): string {
  const sentence = `hello from ${name}, port ${visit.port}, your address ${visit.clientAddress}`;
  const wantsHtml = /^accept:[^\r\n]*text\/html/im.test(head);
  const body = wantsHtml
    ? `<!doctype html><meta charset="utf-8"><title>${name}</title><h1>${name}</h1><p>${sentence}</p>\n`
    : `${sentence}\n`;
  const headers = [
    'HTTP/1.1 200 OK',
    `Content-Type: text/${wantsHtml ? 'html' : 'plain'}; charset=utf-8`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    'Connection: close',
  ];
  return `${headers.join('\r\n')}\r\n\r\n${head.startsWith('HEAD ') ? '' : body}`;
}

/** An HTTP head longer than this is echoed like anything else. */
const MAX_HEAD_BYTES = 16_384;

/** How long a client may take to close after its page. */
const LINGER_MS = 2000;

/**
 * Serves one TCP connection and owns its socket: a page where the client speaks HTTP, else every chunk comes back
 * as `<name>: <chunk>`. Reads no faster than it can write; echoes until FIN, then sends FIN.
 */
export function serveNvaConnection(name: string, socket: Socket): void {
  const prefix = Buffer.from(`${name}: `);
  let head = Buffer.alloc(0);
  let mode: 'undecided' | 'echo' | 'done' = 'undecided';

  const echo = (chunk: Buffer) => {
    mode = 'echo';
    if (!socket.write(Buffer.concat([prefix, chunk]))) socket.pause();
  };
  socket.setNoDelay(true);
  socket.on('drain', () => socket.resume());
  // A reset by the client is the end of this connection and of nothing else.
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    if (mode === 'done') return;
    if (mode === 'echo') {
      echo(chunk);
      return;
    }
    head = Buffer.concat([head, chunk]);
    const text = head.toString('latin1');
    const http = looksLikeHttp(text);
    const isWhole = text.includes('\r\n\r\n');
    if (http === 'no' || (!isWhole && head.length > MAX_HEAD_BYTES)) {
      echo(head);
      return;
    }
    if (http === 'unclear' || !isWhole) return;
    mode = 'done';
    const visit = { port: socket.localPort ?? 0, clientAddress: socket.remoteAddress ?? 'unknown' };
    socket.end(httpAnswer(name, text, visit));
    socket.setTimeout(LINGER_MS, () => socket.destroy());
  });
  socket.on('end', () => {
    if (mode === 'undecided' && head.length > 0) echo(head);
    socket.end();
  });
}

/** The longest payload of an IPv4 datagram: 65,535 less the IPv4 and UDP headers (RFC 791, RFC 768). */
const MAX_PAYLOAD_BYTES = 65_507;

export interface NvaUdpOptions {
  readonly name: string;
  readonly address: IpAddress;
  readonly port: number;
}

/** What to answer to a datagram: with the name before it where that fits, else as it came. */
export function udpAnswer(prefix: Uint8Array, payload: Uint8Array): Uint8Array {
  if (prefix.length + payload.length > MAX_PAYLOAD_BYTES) return payload;
  return Buffer.concat([prefix, payload]);
}

/** Opens an echo on one port. Rejects with the system's error. The caller closes it. */
export async function openNvaUdp(options: NvaUdpOptions): Promise<DatagramSocket> {
  const { name, address, port } = options;
  const socket = createSocket({ type: address.family === 4 ? 'udp4' : 'udp6', recvBufferSize: 1 << 20 });
  const prefix = Buffer.from(`${name}: `);
  socket.on('message', (payload: Buffer, from: RemoteInfo) => {
    // Answering oneself would never end.
    if (from.port === port && from.address === address.text) return;
    socket.send(udpAnswer(prefix, payload), from.port, from.address, () => undefined);
  });
  socket.bind({ address: address.text, port, exclusive: true });
  await once(socket, 'listening');
  // An ICMP error for an answer is of no interest here.
  socket.on('error', () => undefined);
  return socket;
}

interface HealthAnswer {
  readonly status: number;
  readonly text: string;
}

/**
 * The health endpoint of a sample NVA: `GET /healthz` answers 200 `ok` or 503 `sick`; `POST /sick` and
 * `POST /well` choose which. Not listening yet; the caller owns it.
 */
export function createNvaHealthServer(name: string): HttpServer {
  let sick = false;

  const answer = (method: string, path: string): HealthAnswer => {
    if (path === '/healthz') {
      if (method !== 'GET' && method !== 'HEAD') return { status: 405, text: 'Only GET is allowed' };
      return sick ? { status: 503, text: 'sick' } : { status: 200, text: 'ok' };
    }
    if (path !== '/sick' && path !== '/well') {
      return { status: 404, text: 'There are only /healthz, /sick and /well' };
    }
    if (method !== 'POST') return { status: 405, text: 'Only POST is allowed (curl -X POST)' };
    sick = path === '/sick';
    return { status: 200, text: `${name} is ${sick ? 'sick' : 'well'} now` };
  };

  return createHttpServer((request, response) => {
    request.resume();
    const { status, text } = answer(request.method ?? '', request.url ?? '');
    response.writeHead(status, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
    response.end(`${text}\n`);
  });
}
