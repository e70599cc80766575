import { fork, type ChildProcess } from 'node:child_process';
import type { Channel } from './channel.js';

/** A data worker's process, as its supervisor sees it. */
export interface WorkerProcess {
  readonly pid: number | undefined;
  readonly channel: Channel;
  /** Resolves with `exit code 1` or `signal SIGKILL` when it is gone. Never rejects. */
  readonly exited: Promise<string>;
  kill(): void;
}

/**
 * Read buffers are freed by V8's helper threads, and glibc would keep what they free in arenas of their own: one arena
 * has a bulk stream grow the process by 27 MiB instead of 34 (test/integration/tcp-streams.test.ts).
 */
const WORKER_ENVIRONMENT = { MALLOC_ARENA_MAX: '1' };

export type WorkerLauncher = () => WorkerProcess;

/** Starts the script as a child with a structured-clone channel; its output is this process's output. */
export function forkWorker(scriptPath: string): WorkerProcess {
  const child = fork(scriptPath, [], {
    serialization: 'advanced',
    env: { ...WORKER_ENVIRONMENT, ...process.env },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const exited = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once('error', (error) => resolve(error.message));
  });
  return { pid: child.pid, channel: childChannel(child), exited, kill: () => child.kill('SIGKILL') };
}

function childChannel(child: ChildProcess): Channel {
  return {
    send: (message) => {
      // The callback keeps a worker that died between the check and the write from being an uncaught error.
      if (child.connected) child.send(message as object, () => undefined);
    },
    onMessage: (listener) => child.on('message', listener),
    onClose: (listener) => {
      child.once('disconnect', listener);
      child.once('error', listener);
    },
  };
}

/** The worker's own end of the channel to the process that forked it. */
export function parentChannel(): Channel {
  return {
    send: (message) => {
      if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
    },
    onMessage: (listener) => process.on('message', listener),
    onClose: (listener) => process.once('disconnect', listener),
  };
}
