import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';

/** A UDP client with one socket: one source port, so one flow for each destination. */
export class UdpClient {
  readonly socket: Socket;
  readonly #host: string;
  readonly #port: number;
  #sequence = 0;

  private constructor(socket: Socket, host: string, port: number) {
    this.socket = socket;
    this.#host = host;
    this.#port = port;
  }

  static async open(target: { host: string; port: number; localAddress?: string }): Promise<UdpClient> {
    const socket = createSocket(isIPv6(target.host) ? 'udp6' : 'udp4');
    const address = target.localAddress;
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind({ port: 0, ...(address === undefined ? {} : { address }) }, () => {
        socket.off('error', reject);
        resolve();
      });
    });
    socket.on('error', () => undefined);
    return new UdpClient(socket, target.host, target.port);
  }

  send(payload: string | Uint8Array): void {
    this.socket.send(payload, this.#port, this.#host);
  }

  /** Sends a datagram and waits for an answer that holds it; undefined if none comes in time. */
  async ask(timeoutMs = 1000): Promise<{ readonly text: string; readonly from: RemoteInfo } | undefined> {
    const question = `q${this.#sequence++};`;
    return new Promise((resolve) => {
      const done = (answer: { text: string; from: RemoteInfo } | undefined): void => {
        clearTimeout(timer);
        this.socket.off('message', onMessage);
        resolve(answer);
      };
      const onMessage = (message: Buffer, from: RemoteInfo): void => {
        const text = message.toString('latin1');
        if (text.includes(question)) done({ text, from });
      };
      const timer = setTimeout(() => done(undefined), timeoutMs);
      this.socket.on('message', onMessage);
      this.send(question);
    });
  }

  /** Which backend answers, asking up to `tries` times: UDP may lose a datagram. */
  async backend(tries = 3, timeoutMs = 1000): Promise<string | undefined> {
    for (let attempt = 0; attempt < tries; attempt++) {
      const answer = await this.ask(timeoutMs);
      if (answer !== undefined) return answer.text.split(':')[0];
    }
    return undefined;
  }

  close(): void {
    this.socket.close();
  }
}
