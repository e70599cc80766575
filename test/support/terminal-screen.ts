const TOKEN = /\u001b\[([?]?)([0-9;]*)([A-Za-z])|\r|\n|[^\u001b]/gu;

/** What stands on a terminal after some output: as much of xterm as a program of lines needs; throws on anything else. */
export class TerminalScreen {
  readonly #columns: number;
  readonly #rows: number;
  readonly #modes = new Map<string, boolean>([
    ['7', true],
    ['25', true],
    ['1049', false],
  ]);
  #cells: string[][];
  /** The normal screen while the alternate one is shown. */
  #normal: string[][] | undefined;
  #row = 0;
  #column = 0;
  #rest = '';

  constructor({ columns, rows }: { readonly columns: number; readonly rows: number }) {
    this.#columns = columns;
    this.#rows = rows;
    this.#cells = this.#blank();
  }

  get lines(): readonly string[] {
    return this.#cells.map((cells) => cells.join('').trimEnd());
  }

  get text(): string {
    return this.lines.join('\n');
  }

  get isAlternate(): boolean {
    return this.#modes.get('1049') === true;
  }

  get isCursorShown(): boolean {
    return this.#modes.get('25') === true;
  }

  get wraps(): boolean {
    return this.#modes.get('7') === true;
  }

  write(output: string): void {
    const text = this.#rest + output;
    const open = /\u001b(?:\[[?0-9;]*)?$/.exec(text);
    this.#rest = open?.[0] ?? '';
    for (const match of text.slice(0, text.length - this.#rest.length).matchAll(TOKEN)) {
      const [token, mark = '', numbers = '', final] = match;
      if (final !== undefined) this.#control(mark, numbers, final);
      else if (token === '\r') this.#column = 0;
      else if (token === '\n') this.#lineFeed();
      else this.#print(token);
    }
  }

  #control(mark: string, numbers: string, final: string): void {
    const row = this.#cells[this.#row]!;
    switch (`${mark}${final}`) {
      case 'H':
        if (numbers !== '') throw new Error(`Cursor to "${numbers}" is not known`);
        this.#row = 0;
        this.#column = 0;
        return;
      case 'K':
        // From the cursor on, its own cell too: that is the last one once a line is full.
        row.fill(' ', this.#column);
        return;
      case 'J':
        if (numbers === '2') {
          this.#cells = this.#blank();
          return;
        }
        row.fill(' ', this.#column);
        for (const below of this.#cells.slice(this.#row + 1)) below.fill(' ');
        return;
      case 'm':
        return;
      case '?h':
      case '?l':
        this.#mode(numbers, final === 'h');
        return;
      default:
        throw new Error(`Escape sequence "${mark}${numbers}${final}" is not known`);
    }
  }

  #mode(number: string, isSet: boolean): void {
    if (number === '1049' && isSet !== this.isAlternate) {
      const shown = this.#cells;
      this.#cells = isSet ? this.#blank() : (this.#normal ?? this.#blank());
      this.#normal = isSet ? shown : undefined;
    }
    this.#modes.set(number, isSet);
  }

  #print(character: string): void {
    if (this.#column >= this.#columns) {
      this.#column = 0;
      this.#lineFeed();
    }
    this.#cells[this.#row]![this.#column] = character;
    const isLast = this.#column === this.#columns - 1;
    // Without wrapping, the cursor stays in the last column.
    if (!isLast || this.wraps) this.#column++;
  }

  #lineFeed(): void {
    if (this.#row < this.#rows - 1) {
      this.#row++;
      return;
    }
    this.#cells.shift();
    this.#cells.push(Array.from({ length: this.#columns }, () => ' '));
  }

  #blank(): string[][] {
    return Array.from({ length: this.#rows }, () => Array.from({ length: this.#columns }, () => ' '));
  }
}
