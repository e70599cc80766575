import { spawn, type ChildProcess } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { eventually, within } from './deadline.js';

/** systemd's end of a notify socket. Ends with its standard input, so that it never outlives the test. */
const RECEIVER = `
import json, select, socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print(json.dumps("listening"), flush=True)
while True:
    ready, _, _ = select.select([receiver, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    # File descriptors that come along (BARRIER=1) are closed by the kernel, which is what the sender waits for.
    print(json.dumps(receiver.recv(65536).decode()), flush=True)
`;

/** What the systemd-notify program does, without its checks. */
const SENDER = `#!/usr/bin/env python3
import os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.sendto("\\n".join(sys.argv[1:]).encode(), os.environ["NOTIFY_SOCKET"])
`;

/** A stand-in for systemd that reads what a service tells it; Node has no datagram sockets of AF_UNIX, Python has. */
export class NotifySocket {
  readonly path: string;
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #messages: (readonly string[])[] = [];

  private constructor(child: ChildProcess, folder: string, path: string) {
    this.#child = child;
    this.#folder = folder;
    this.path = path;
  }

  /** Needs python3. */
  static async open(): Promise<NotifySocket> {
    const folder = await mkdtemp(join(tmpdir(), 'haports-notify-'));
    const path = join(folder, 'notify.sock');
    const child = spawn('python3', ['-c', RECEIVER, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    const socket = new NotifySocket(child, folder, path);
    const listening = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      createInterface({ input: child.stdout }).on('line', (line) => {
        const text = JSON.parse(line) as string;
        if (text === 'listening') resolve();
        // A message of its own that systemd-notify waits for; it says nothing about the service.
        else if (text !== 'BARRIER=1') socket.#messages.push(text.split('\n'));
      });
    });
    try {
      await within(listening, 10_000, 'a notify socket');
      return socket;
    } catch (error) {
      await socket.close();
      throw error;
    }
  }

  /** Messages so far; each is its variables. */
  get messages(): readonly (readonly string[])[] {
    return this.#messages;
  }

  /** The first message with this variable, as soon as it is there. */
  async message(variable: string, timeoutMs = 10_000): Promise<readonly string[]> {
    return eventually(
      () => this.#messages.find((message) => message.includes(variable)),
      timeoutMs,
      `a message with ${variable}, besides ${JSON.stringify(this.#messages)}`,
    );
  }

  /** A folder with a `systemd-notify` in it that needs nothing but python3, for the PATH. Removed by close(). */
  async standInFolder(): Promise<string> {
    const program = join(this.#folder, 'systemd-notify');
    await writeFile(program, SENDER);
    await chmod(program, 0o755);
    return this.#folder;
  }

  async close(): Promise<void> {
    this.#child.stdin?.end();
    this.#child.kill('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }
}
