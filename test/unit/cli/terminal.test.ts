import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import {
  createTerminal,
  type Terminal,
  type TerminalInput,
  type TerminalOutput,
} from '../../../src/cli/terminal.js';

class FakeOutput extends EventEmitter {
  isTTY = true;
  columns = 100;
  rows = 30;
  written = '';

  write(text: string): void {
    this.written += text;
  }
}

class FakeInput extends EventEmitter {
  isTTY = true;
  readonly calls: string[] = [];

  setRawMode(raw: boolean): void {
    this.calls.push(`raw ${raw}`);
  }

  setEncoding(): void {
    this.calls.push('encoding');
  }

  resume(): void {
    this.calls.push('resume');
  }

  pause(): void {
    this.calls.push('pause');
  }
}

function aTerminal(env: Record<string, string> = { TERM: 'xterm' }): {
  output: FakeOutput;
  input: FakeInput;
  exits: Set<() => void>;
  terminal: Terminal;
} {
  const output = new FakeOutput();
  const input = new FakeInput();
  const exits = new Set<() => void>();
  const terminal = createTerminal({
    output: output as unknown as TerminalOutput,
    input: input as unknown as TerminalInput,
    env,
    onExit: (listener) => {
      exits.add(listener);
      return () => exits.delete(listener);
    },
  });
  return { output, input, exits, terminal };
}

describe('createTerminal()', () => {
  test('takes over the alternate screen without cursor and wrapping, and gives everything back once', () => {
    const { output, input, exits, terminal } = aTerminal();
    const screen = terminal.openScreen();
    assert.equal(output.written, '\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[2J');
    assert.deepEqual(input.calls, ['raw true', 'encoding', 'resume']);
    output.written = '';
    screen.close();
    screen.close();
    assert.equal(output.written, '\u001b[?7h\u001b[?25h\u001b[?1049l');
    assert.deepEqual(input.calls.slice(3), ['raw false', 'pause']);
    assert.deepEqual([exits.size, input.listenerCount('data'), output.listenerCount('resize')], [0, 0, 0]);
    screen.draw([{ text: 'late' }]);
    assert.doesNotMatch(output.written, /late/);
  });

  test('gives everything back when the process ends in between', () => {
    const { output, exits, terminal } = aTerminal();
    terminal.openScreen();
    for (const exit of [...exits]) exit();
    assert.match(output.written, /\u001b\[\?25h\u001b\[\?1049l$/);
  });

  test('draws every line anew, erasing what was longer or further down', () => {
    const { output, terminal } = aTerminal();
    const screen = terminal.openScreen();
    output.written = '';
    screen.draw([{ text: 'one', style: 'alert' }, { text: 'two' }]);
    assert.equal(output.written, '\u001b[H\u001b[K\u001b[1;31mone\u001b[0m\r\n\u001b[Jtwo\u001b[0m');
    screen.close();
  });

  test('uses no colour where NO_COLOR asks for none', () => {
    const { output, terminal } = aTerminal({ NO_COLOR: '1' });
    const screen = terminal.openScreen();
    screen.draw([{ text: 'one', style: 'alert' }]);
    screen.close();
    assert.doesNotMatch(output.written, /31m/);
  });

  test('tells what is typed and new sizes, while open', () => {
    const { output, input, terminal } = aTerminal();
    const told: string[] = [];
    const screen = terminal.openScreen();
    screen.onInput((text) => told.push(text));
    screen.onResize(() => told.push(`${terminal.size().columns}x${terminal.size().rows}`));
    input.emit('data', 'q');
    output.columns = 40;
    output.emit('resize');
    screen.close();
    input.emit('data', 'x');
    assert.deepEqual(told, ['q', '40x30']);
  });

  test('is 80x24 where the size is unknown, or what the environment says', () => {
    const size = (env: Record<string, string>) => {
      const { output, terminal } = aTerminal(env);
      output.columns = Number.NaN;
      output.rows = 0;
      return terminal.size();
    };
    assert.deepEqual(size({}), { columns: 80, rows: 24 });
    assert.deepEqual(size({ COLUMNS: '132', LINES: 'many' }), { columns: 132, rows: 24 });
  });

  test('is interactive on a terminal that understands escape sequences', () => {
    assert.equal(aTerminal().terminal.isInteractive, true);
    assert.equal(aTerminal({ TERM: 'dumb' }).terminal.isInteractive, false);
  });
});
