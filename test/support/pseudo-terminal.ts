import { spawn, type ChildProcess } from 'node:child_process';
import { eventually, within } from './deadline.js';
import { TerminalScreen } from './terminal-screen.js';

/** Runs a program on a terminal of its own; tells its pid, then what became of it, on file descriptor 3. */
const RELAY = `
import fcntl, json, os, pty, select, struct, sys, termios
columns, rows = int(sys.argv[1]), int(sys.argv[2])
report = os.fdopen(3, "w", buffering=1)
pid, master = pty.fork()
if pid == 0:
    os.close(3)
    # The size comes first.
    sys.stdin.readline()
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[3], sys.argv[3:])
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
before = termios.tcgetattr(master)
os.write(master, b"\\n")
print(json.dumps({"pid": pid}), file=report)
watched = [master, 0]
while True:
    ready, _, _ = select.select(watched, [], [])
    if 0 in ready:
        typed = os.read(0, 4096)
        if typed:
            os.write(master, typed)
        else:
            watched.remove(0)
    if master in ready:
        try:
            shown = os.read(master, 65536)
        except OSError:
            shown = b""
        if not shown:
            break
        os.write(1, shown)
_, status = os.waitpid(pid, 0)
same = termios.tcgetattr(master)[:4] == before[:4]
code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
print(json.dumps({"code": code, "same": same}), file=report)
`;

/** What was left when the program ended. */
export interface TerminalEnd {
  /** Negative: the signal that killed it. */
  readonly code: number;
  /** Whether echo, line editing and the rest are as they were. */
  readonly same: boolean;
}

/** A program on a pseudo terminal, as its user sees it. Python makes the terminal: Node has none. */
export class PseudoTerminal {
  readonly screen: TerminalScreen;
  readonly #relay: ChildProcess;
  readonly #reports: string[];

  private constructor(relay: ChildProcess, screen: TerminalScreen) {
    this.#relay = relay;
    this.screen = screen;
    this.#reports = [];
    let text = '';
    (relay.stdio[3] as NodeJS.ReadableStream).setEncoding('utf8').on('data', (part: string) => {
      const lines = (text + part).split('\n');
      text = lines.pop() ?? '';
      this.#reports.push(...lines);
    });
    relay.stdout?.setEncoding('utf8').on('data', (part: string) => screen.write(part));
    relay.stdin?.on('error', () => undefined);
  }

  static start(
    command: readonly string[],
    size: { readonly columns: number; readonly rows: number } = { columns: 80, rows: 24 },
  ): PseudoTerminal {
    const args = ['-c', RELAY, String(size.columns), String(size.rows), ...command];
    const relay = spawn('python3', args, { stdio: ['pipe', 'pipe', 'inherit', 'pipe'] });
    return new PseudoTerminal(relay, new TerminalScreen(size));
  }

  type(keys: string): void {
    this.#relay.stdin?.write(keys);
  }

  async signal(name: NodeJS.Signals): Promise<void> {
    const { pid } = await this.#report<{ readonly pid: number }>(0);
    process.kill(pid, name);
  }

  /** Resolves with the lines of the screen once this can be seen on it. */
  async shows(what: RegExp, timeoutMs = 8000): Promise<readonly string[]> {
    try {
      await eventually(() => what.test(this.screen.text), timeoutMs, `${what} on the screen`);
    } catch (cause) {
      throw new Error(`${what} is not on the screen:\n${this.screen.text}`, { cause });
    }
    return this.screen.lines;
  }

  async ended(timeoutMs = 8000): Promise<TerminalEnd> {
    const gone = new Promise((resolve) => this.#relay.once('close', resolve));
    const end = await this.#report<TerminalEnd>(1, timeoutMs);
    await within(gone, timeoutMs, 'the terminal to close');
    return end;
  }

  /** Hangs up: the program gets SIGHUP. */
  kill(): void {
    this.#relay.kill('SIGKILL');
  }

  async #report<T>(index: number, timeoutMs = 8000): Promise<T> {
    const line = await eventually(() => this.#reports[index], timeoutMs, 'news of the program');
    return JSON.parse(line) as T;
  }
}
