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
    this.#health = createHealthServer(options.name);
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
      await this.#listen(this.#health, healthPort);
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
      serveConnection(this.#options.name, socket);
    });
    await this.#listen(server, port);
    this.#tcp.push(server);
  }

  async #listenUdp(port: number): Promise<void> {
    try {
      this.#udp.push(await openUdp(this.#options.name, this.#options.address, port));
    } catch (cause) {
      throw this.#listenError('udp', port, cause);
    }
  }

  async #listen(server: Server, port: number): Promise<void> {
    try {
      server.listen({ host: this.#options.address.text, port, exclusive: true });
      await once(server, 'listening');
      server.on('error', () => undefined);
    } catch (cause) {
      throw this.#listenError('tcp', port, cause);
    }
  }

  #listenError(protocol: Protocol, port: number, cause: unknown): BalancerError {
    const { name, address } = this.#options;
    const where = `${protocol} ${formatEndpoint(address, port)}`;
    const message = `Sample NVA "${name}" cannot listen on ${where}: ${errorCode(cause) ?? errorMessage(cause)}`;
    return new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'].map((method) => `${method} /`);

/** Whether the first bytes of a stream start an HTTP request; `unclear`: more bytes are needed to tell. */
function looksLikeHttp(head: string): 'yes' | 'no' | 'unclear' {
  if (METHODS.some((start) => head.startsWith(start))) return 'yes';
  return METHODS.some((start) => start.startsWith(head)) ? 'unclear' : 'no';
}

/**
 * The whole answer, as text for the wire, to a request whose head is given: where it came in, and from whom as the NVA
 * sees it, which is the balancer's address unless that is transparent.
 */
function httpAnswer(name: string, head: string, { localPort, remoteAddress }: Socket): string {
  const sentence = `hello from ${name}, port ${localPort ?? 0}, your address ${remoteAddress ?? 'unknown'}`;
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
function serveConnection(name: string, socket: Socket): void {
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
    socket.end(httpAnswer(name, text, socket));
    socket.setTimeout(LINGER_MS, () => socket.destroy());
  });
  socket.on('end', () => {
    if (mode === 'undecided' && head.length > 0) echo(head);
    socket.end();
  });
}

/** The longest payload of an IPv4 datagram: 65,535 less the IPv4 and UDP headers (RFC 791, RFC 768). */
const MAX_PAYLOAD_BYTES = 65_507;

/** Opens an echo on one port. Rejects with the system's error. The caller closes it. */
async function openUdp(name: string, address: IpAddress, port: number): Promise<DatagramSocket> {
  const socket = createSocket({ type: address.family === 4 ? 'udp4' : 'udp6', recvBufferSize: 1 << 20 });
  const prefix = Buffer.from(`${name}: `);
  socket.on('message', (payload: Buffer, from: RemoteInfo) => {
    // Answering oneself would never end.
    if (from.port === port && from.address === address.text) return;
    const fits = prefix.length + payload.length <= MAX_PAYLOAD_BYTES;
    socket.send(fits ? Buffer.concat([prefix, payload]) : payload, from.port, from.address, () => undefined);
  });
  socket.bind({ address: address.text, port, exclusive: true });
  await once(socket, 'listening');
  // An ICMP error for an answer is of no interest here.
  socket.on('error', () => undefined);
  return socket;
}

/**
 * The health endpoint of a sample NVA: `GET /healthz` answers 200 `ok` or 503 `sick`; `POST /sick` and
 * `POST /well` choose which. Not listening yet; the caller owns it.
 */
function createHealthServer(name: string): HttpServer {
  let sick = false;
  const answer = (method: string, path: string): readonly [status: number, text: string] => {
    switch (path) {
      case '/healthz':
        if (method !== 'GET' && method !== 'HEAD') return [405, 'Only GET is allowed'];
        return sick ? [503, 'sick'] : [200, 'ok'];
      case '/sick':
      case '/well':
        if (method !== 'POST') return [405, 'Only POST is allowed (curl -X POST)'];
        sick = path === '/sick';
        return [200, `${name} is ${sick ? 'sick' : 'well'} now`];
      default:
        return [404, 'There are only /healthz, /sick and /well'];
    }
  };
  return createHttpServer((request, response) => {
    request.resume();
    const [status, text] = answer(request.method ?? '', request.url ?? '');
    response.writeHead(status, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
    response.end(`${text}\n`);
  });
}
