/** How a line is set. `alert` is for what is wrong. */
export type LineStyle = 'plain' | 'title' | 'header' | 'dim' | 'alert';

export interface ScreenLine {
  readonly text: string;
  /** @default 'plain' */
  readonly style?: LineStyle;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** The whole terminal, taken over until closed. */
export interface Screen {
  /** Replaces what is shown. Lines must fit the size. */
  draw(lines: readonly ScreenLine[]): void;
  /** Calls with what was typed, escape sequences and all. */
  onInput(listener: (text: string) => void): void;
  onResize(listener: () => void): void;
  /** Gives the terminal back as it was. May be called again. */
  close(): void;
}

/** Where output goes and input comes from. */
export interface Terminal {
  /** A terminal that understands escape sequences reads what is printed. */
  readonly isInteractive: boolean;
  /** Of now; 80x24 where it is unknown. */
  size(): TerminalSize;
  openScreen(): Screen;
}

/** The parts of process.stdout that a terminal needs; the optional ones are there on a terminal. */
export type TerminalOutput = Partial<Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'rows'>> &
  Pick<NodeJS.WriteStream, 'write' | 'on' | 'off'>;

/** The parts of process.stdin that a terminal needs. */
export type TerminalInput = Partial<Pick<NodeJS.ReadStream, 'isTTY' | 'setRawMode'>> &
  Pick<NodeJS.ReadStream, 'setEncoding' | 'on' | 'off' | 'resume' | 'pause'>;

export interface TerminalStreams {
  readonly output: TerminalOutput;
  readonly input: TerminalInput;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Calls when the process ends however it ends, until the returned function is called. */
  readonly onExit: (listener: () => void) => () => void;
}

const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[2J';
const LEAVE = '\u001b[?7h\u001b[?25h\u001b[?1049l';
const HOME = '\u001b[H';
const ERASE_LINE = '\u001b[K';
const ERASE_BELOW = '\u001b[J';
const RESET = '\u001b[0m';

/** A terminal over the streams of a process (ECMA-48 and xterm's private modes 7, 25 and 1049). */
export function createTerminal({ output, input, env, onExit }: TerminalStreams): Terminal {
  const isInteractive = output.isTTY === true && env['TERM'] !== 'dumb';
  return {
    isInteractive,
    size: () => ({
      columns: positive(output.columns) ?? positive(Number(env['COLUMNS'])) ?? 80,
      rows: positive(output.rows) ?? positive(Number(env['LINES'])) ?? 24,
    }),
    openScreen: () => openScreen({ output, input, env, onExit }),
  };
}

function openScreen({ output, input, env, onExit }: TerminalStreams): Screen {
  const styles = stylesFor(env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '');
  let onInput: (text: string) => void = () => undefined;
  let onResize: () => void = () => undefined;
  let isOpen = true;
  const heard = (text: string): void => onInput(text);
  const resized = (): void => onResize();
  const close = (): void => {
    if (!isOpen) return;
    isOpen = false;
    forgetExit();
    output.off('resize', resized);
    input.off('data', heard);
    if (input.isTTY === true) input.setRawMode?.(false);
    input.pause();
    output.write(LEAVE);
  };
  const forgetExit = onExit(close);
  output.write(ENTER);
  output.on('resize', resized);
  if (input.isTTY === true) input.setRawMode?.(true);
  input.setEncoding('utf8');
  input.on('data', heard);
  input.resume();
  return {
    draw(lines) {
      if (!isOpen) return;
      // Erased first: behind a line as wide as the terminal the cursor stays on its last character.
      const set = lines.map(
        ({ text, style }, index) =>
          `${index === lines.length - 1 ? ERASE_BELOW : ERASE_LINE}${styles[style ?? 'plain']}${text}${RESET}`,
      );
      output.write(`${HOME}${set.join('\r\n')}`);
    },
    onInput: (listener) => void (onInput = listener),
    onResize: (listener) => void (onResize = listener),
    close,
  };
}

function stylesFor(withoutColour: boolean): Readonly<Record<LineStyle, string>> {
  return {
    plain: '',
    title: '\u001b[1m',
    header: '\u001b[7m',
    dim: '\u001b[2m',
    alert: withoutColour ? '\u001b[1m' : '\u001b[1;31m',
  };
}

function positive(number: number | undefined): number | undefined {
  return number !== undefined && Number.isInteger(number) && number > 0 ? number : undefined;
}
