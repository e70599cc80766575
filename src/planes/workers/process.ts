import { fork } from 'node:child_process';
import cluster from 'node:cluster';
import { channelTo, peerOf, type Channel, type PeerProcess } from '../../runtime/peer.js';

/**
 * For glibc; other systems ignore it (mallopt(3)). V8's helper threads would have arenas of their own: one arena has a
 * bulk stream grow the process by 28 MiB instead of 33 (test/integration/tcp-streams.test.ts). V8 frees some 32 MiB of
 * read buffers at a time: handing that back to the kernel, only to get it anew page fault by page fault, cost a third of
 * the CPU time of a bulk stream, so as much is kept.
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: String(64 * 1024 * 1024) };

/**
 * In MiB. V8 takes up to three semi-spaces for what is short-lived, 16 MiB each if left alone, which is 2 KiB a flow at
 * 8,000 flows. Less is as fast (docs/performance.md).
 */
const SEMI_SPACE = '--max-semi-space-size=2';

/**
 * In MiB. V8 counts read buffers with the old objects; once it has set itself a limit of some 30 MiB for both together,
 * the scavenges that free buffers, one for 32 MiB of them, are each followed by a full collection, and a bulk stream
 * pays for it with half as much CPU time again. This keeps the limit above that.
 */
const HEAP_FLOOR = '--initial-heap-size=96';

/**
 * V8 frees read buffers on a helper thread, which a busy machine may not run in time: meanwhile new ones pile up, and a
 * bulk stream grows the process by up to 35 MiB. Freed on the main thread, 32 MiB of them at a time, it is 28 MiB always,
 * for the same CPU time.
 */
const SWEEP_AT_ONCE = '--no-concurrent-array-buffer-sweeping';

/** What this process was started with wins. */
function workerOptions(): string[] {
  return [HEAP_FLOOR, SWEEP_AT_ONCE, ...process.execArgv];
}

/** What this process was given wins. */
function workerEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS = '', ...rest } = process.env;
  return { ...ALLOCATOR, ...rest, NODE_OPTIONS: `${SEMI_SPACE} ${NODE_OPTIONS}` };
}

const STDIO = ['ignore', 'inherit', 'inherit', 'ipc'] as const;

export type WorkerLauncher = () => PeerProcess;

/** Starts the script as a child with a structured-clone channel; its output is this process's output. */
export function forkWorker(scriptPath: string): PeerProcess {
  const child = fork(scriptPath, [], {
    serialization: 'advanced',
    execArgv: workerOptions(),
    env: workerEnvironment(),
    stdio: [...STDIO],
  });
  return peerOf(child);
}

/**
 * As forkWorker, for several workers that share their TCP sockets: this process holds each socket and accepts nothing
 * on it, the workers accept by themselves (SCHED_NONE). A connection that waits to be accepted survives a worker's
 * death. One worker alone is better off with sockets of its own: handing one over takes some 0.3 ms.
 */
export function forkSharingWorker(scriptPath: string): PeerProcess {
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.setupPrimary({
    exec: scriptPath,
    args: [],
    execArgv: workerOptions(),
    serialization: 'advanced',
    stdio: [...STDIO],
  });
  const worker = cluster.fork(workerEnvironment());
  const child = worker.process;
  worker.on('error', () => undefined);
  const peer = peerOf(child);
  const channel = patientChannel(peer.channel);
  // Only a closed channel has the cluster close the worker's share of every socket.
  const closed = new Promise<void>((resolve) => channel.onClose(resolve));
  const exited = Promise.all([peer.exited, closed]).then(([evidence]) => evidence);
  return { ...peer, channel, exited };
}

/** What a worker that shares sockets says first. */
const HELLO = 'hello';

/**
 * Holds back what is sent until the worker says hello. Node keeps what comes before anybody listens, but in a cluster
 * worker the cluster itself listens from the start, so it would be lost.
 */
function patientChannel(channel: Channel): Channel {
  let held: Parameters<Channel['send']>[] | undefined = [];
  channel.onMessage((message) => {
    if (message !== HELLO) return;
    const messages = held ?? [];
    held = undefined;
    for (const waiting of messages) channel.send(...waiting);
  });
  return {
    ...channel,
    send: (...message) => {
      if (held === undefined) channel.send(...message);
      else held.push(message);
    },
    onMessage: (listener) =>
      channel.onMessage((message, handle) => {
        if (message !== HELLO) listener(message, handle);
      }),
  };
}

/** The worker's own end of the channel to the process that forked it. */
export function parentChannel(): Channel {
  // Else the cluster ends a worker that loses its channel at once, whatever flows it has (lib/internal/cluster/child.js).
  if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
  const channel = channelTo(process);
  let greeted = false;
  return {
    ...channel,
    onMessage: (listener) => {
      channel.onMessage(listener);
      if (!greeted && cluster.worker !== undefined) channel.send(HELLO);
      greeted = true;
    },
  };
}
