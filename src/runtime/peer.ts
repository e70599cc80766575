import { spawn, type SendHandle } from 'node:child_process';

/*
 * The two control processes of an upgrade and the channel between them: Node's own, which can carry sockets.
 */

/** What may go along with a message: Node's own object under a socket. */
export interface PeerHandle {
  readonly handle: unknown;
  /** Called when it has gone, or cannot. */
  release(): void;
}

/** Ordered, structured-clone messages to another process. `send` on a closed channel does nothing but release. */
export interface PeerChannel {
  send(message: object, sent?: PeerHandle): void;
  /** One listener only. A handle that comes along is the listener's, to be closed. */
  onMessage(listener: (message: unknown, handle: unknown) => void): void;
  onClose(listener: () => void): void;
  /** Says no more. Neither process ends by it. */
  close(): void;
}

/** A process that is to take this one's place. */
export interface SuccessorProcess {
  readonly pid: number | undefined;
  readonly channel: PeerChannel;
  /** Resolves with `exit code 1` or `signal SIGKILL` when it is gone. Never rejects. */
  readonly exited: Promise<string>;
  kill(): void;
  /** This process no longer waits for its end. */
  letGo(): void;
}

/** How this process was started. */
export interface CommandLine {
  /** As it was called: a name is looked up in PATH anew. */
  readonly node: string;
  readonly nodeOptions: readonly string[];
  /** The script and what follows it. A path with symbolic links is followed anew. */
  readonly args: readonly string[];
}

/**
 * Starts the successor with the same command line, in a session of its own so that it outlives this process; its output
 * is this process's output.
 */
export function startSuccessor({ node, nodeOptions, args }: CommandLine): SuccessorProcess {
  // The watchdog's pid is this one's (sd_watchdog_enabled(3)).
  const env = { ...process.env, HAPORTS_UPGRADE: '1', WATCHDOG_PID: undefined };
  const child = spawn(node, [...nodeOptions, ...args], {
    detached: true,
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env,
  });
  const exited = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once('error', (error) => resolve(error.message));
  });
  return {
    pid: child.pid,
    exited,
    channel: {
      send(message, sent) {
        if (child.connected)
          child.send(message, sent?.handle as SendHandle | undefined, () => sent?.release());
        else sent?.release();
      },
      onMessage: (listener) => child.on('message', listener),
      onClose: (listener) => child.once('disconnect', listener),
      close() {
        if (child.connected) child.disconnect();
      },
    },
    kill: () => child.kill('SIGKILL'),
    letGo: () => child.unref(),
  };
}

/** The channel to the process whose place this one takes; undefined: it was started by somebody else. Call it once. */
export function predecessorChannel(): PeerChannel | undefined {
  if (process.env['HAPORTS_UPGRADE'] === undefined) return undefined;
  // Not for this process's own children.
  delete process.env['HAPORTS_UPGRADE'];
  if (process.send === undefined) return undefined;
  return {
    send(message, sent) {
      if (process.connected)
        process.send?.(message, sent?.handle as SendHandle | undefined, undefined, () => sent?.release());
      else sent?.release();
    },
    onMessage: (listener) => process.on('message', listener),
    onClose: (listener) => process.once('disconnect', listener),
    close() {
      process.removeAllListeners('message');
      if (process.connected) process.disconnect();
    },
  };
}
