import type { Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Server as HttpServer } from 'node:http';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { formatEndpoint, type IpAddress } from '../model/address.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { Protocol } from '../model/five-tuple.js';
import { portsOf, type PortSet } from '../model/port-set.js';
import { createNvaHealthServer } from './nva-health.js';
import { serveNvaConnection } from './nva-tcp.js';
import { openNvaUdp } from './nva-udp.js';

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
