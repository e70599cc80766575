import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';

/**
 * An echo on many ports in this process that remembers from which port each client's data came. Clients begin all they
 * send with `<client> `.
 */
export class RecordingBackend {
  /** Client -> source ports seen. */
  readonly sourcePorts = new Map<string, Set<number>>();
  /** Everything that came in as datagrams, in the order of its coming. */
  readonly datagrams: string[] = [];
  /** Most TCP connections open at the same time. */
  mostConnections = 0;
  readonly connections = new Set<Socket>();
  readonly #servers: Server[] = [];
  readonly #sockets: UdpSocket[] = [];

  static async open(address: string, ports: readonly number[]): Promise<RecordingBackend> {
    const backend = new RecordingBackend();
    for (const port of ports) {
      await backend.#openTcp(address, port);
      await backend.#openUdp(address, port);
    }
    return backend;
  }

  /** The one port that this client's data came from; fails if it came from several. */
  sourcePort(client: string): number {
    const [port, ...more] = this.sourcePorts.get(client) ?? [];
    if (port === undefined) throw new Error(`Nothing came from client ${client}`);
    if (more.length > 0) throw new Error(`Client ${client} came from ports ${[port, ...more].join(', ')}`);
    return port;
  }

  close(): void {
    for (const socket of this.#sockets.splice(0)) socket.close();
    for (const server of this.#servers.splice(0)) server.close();
    for (const connection of this.connections) connection.destroy();
  }

  #openTcp(address: string, port: number): Promise<void> {
    const server = createServer((socket) => {
      this.connections.add(socket);
      this.mostConnections = Math.max(this.mostConnections, this.connections.size);
      socket.on('error', () => undefined);
      socket.on('close', () => this.connections.delete(socket));
      socket.on('data', (chunk: Buffer) => {
        this.#note(chunk.toString('latin1'), socket.remotePort ?? 0);
        socket.write(chunk);
      });
    });
    this.#servers.push(server);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: address, port, backlog: 1024 }, resolve);
    });
  }

  #openUdp(address: string, port: number): Promise<void> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 2 ** 21 });
    socket.on('message', (datagram, from) => {
      const text = datagram.toString('latin1');
      this.datagrams.push(text);
      this.#note(text, from.port);
      socket.send(datagram, from.port, from.address, () => undefined);
    });
    this.#sockets.push(socket);
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.bind({ address, port }, resolve);
    });
  }

  #note(text: string, sourcePort: number): void {
    const client = text.slice(0, text.indexOf(' '));
    const ports = this.sourcePorts.get(client);
    if (ports === undefined) this.sourcePorts.set(client, new Set([sourcePort]));
    else ports.add(sourcePort);
  }
}
