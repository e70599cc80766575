import type {
  AcceptHandler,
  ByteStream,
  DialOptions,
  ListenOptions,
  StreamEndpoint,
  StreamHandler,
  StreamListener,
  StreamSockets,
} from '../../src/planes/userspace/sockets/byte-stream.js';

/** A stream without a socket: remembers what is done to it, and says what a test has it say. */
export class FakeStream implements ByteStream {
  handler!: StreamHandler;
  readonly options: DialOptions | undefined;
  readonly calls: string[] = [];
  readonly written: Buffer[] = [];
  local: StreamEndpoint | undefined;
  remote: StreamEndpoint | undefined;
  waitingBytes = 0;
  isPaused = true;
  /** What `write` answers. */
  hasRoom = true;

  constructor(options?: DialOptions) {
    this.options = options;
  }

  get text(): string {
    return Buffer.concat(this.written).toString('latin1');
  }

  write(chunk: Uint8Array): boolean {
    this.written.push(Buffer.from(chunk));
    return this.hasRoom;
  }

  notifyDrained(): void {
    this.calls.push('notifyDrained');
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  shutdown(): void {
    this.calls.push('shutdown');
  }

  reset(): void {
    this.calls.push('reset');
  }

  destroy(): void {
    this.calls.push('destroy');
  }

  setNoDelay(): void {
    this.calls.push('setNoDelay');
  }

  setKeepAlive(idleMs: number): void {
    this.calls.push(`setKeepAlive ${idleMs}`);
  }

  localEndpoint(): StreamEndpoint | undefined {
    return this.local;
  }

  remoteEndpoint(): StreamEndpoint | undefined {
    return this.remote;
  }

  // What the other end and the kernel do.

  connect(): void {
    this.handler.onConnect(this);
  }

  say(text: string): void {
    if (this.isPaused) throw new Error(`Paused, and nothing reads "${text}"`);
    this.handler.onData(this, Buffer.from(text, 'latin1'));
  }

  end(): void {
    if (this.isPaused) throw new Error('Paused, and nothing reads the end');
    this.handler.onEnd(this);
  }

  drain(): void {
    this.waitingBytes = 0;
    this.hasRoom = true;
    this.handler.onDrain(this);
  }

  /** The socket is gone, as after any error. */
  fail(code: string, syscall?: string): void {
    this.handler.onError(this, Object.assign(new Error(code), { code, syscall }));
    this.close();
  }

  close(): void {
    this.options?.local?.release();
    this.handler.onClose(this);
  }
}

/** TCP in memory. */
export class FakeStreams implements StreamSockets {
  /** In the order they were dialled. */
  readonly dialled: FakeStream[] = [];
  readonly listening: {
    readonly options: ListenOptions;
    readonly handler: AcceptHandler;
    isOpen: boolean;
  }[] = [];

  dial(options: DialOptions, handler: StreamHandler): FakeStream {
    const stream = new FakeStream(options);
    stream.handler = handler;
    this.dialled.push(stream);
    return stream;
  }

  listen(options: ListenOptions, handler: AcceptHandler): Promise<StreamListener> {
    const socket = { options, handler, isOpen: true };
    this.listening.push(socket);
    return Promise.resolve({
      rawHandle: () => undefined,
      close: () => {
        socket.isOpen = false;
      },
    });
  }

  /** A client's connection to the socket opened last, and where that says it was made to. */
  accept(address = '192.0.2.1', port = 4000, local?: StreamEndpoint): FakeStream {
    const stream = new FakeStream();
    stream.remote = { address, port };
    stream.local = local;
    const socket = this.listening.at(-1);
    if (socket?.isOpen !== true) throw new Error('Nothing listens');
    socket.handler.onStream(stream);
    return stream;
  }

  last(): FakeStream {
    const stream = this.dialled.at(-1);
    if (stream === undefined) throw new Error('Nothing was dialled');
    return stream;
  }
}
