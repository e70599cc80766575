/*
 * Enough of PromQL to know that an expression is well-formed and what it asks for; written from the grammar in the
 * Prometheus documentation ("Querying"). Throws SyntaxError on what it does not understand.
 */

/** One metric in an expression. */
export interface Selector {
  readonly metric: string;
  /** Labels that its matchers name. */
  readonly labels: readonly string[];
  /** Function that it is the range argument of, as `rate`. */
  readonly ranged?: string;
}

export interface Query {
  readonly selectors: readonly Selector[];
  /** Labels in by, without, on, ignoring, group_left and group_right. */
  readonly groupings: readonly string[];
}

type Kind = 'scalar' | 'string' | 'instant' | 'range';

const AGGREGATIONS = ['sum', 'min', 'max', 'avg', 'count', 'topk', 'bottomk', 'quantile', 'group'];
const RANGE_FUNCTIONS = ['rate', 'irate', 'increase', 'changes', 'delta', 'max_over_time', 'avg_over_time'];
const INSTANT_FUNCTIONS = [
  'label_replace',
  'vector',
  'histogram_quantile',
  'absent',
  'abs',
  'clamp_min',
  'clamp_max',
  'time',
];
/** Weakest first. */
const BINARY = [
  ['or'],
  ['and', 'unless'],
  ['==', '!=', '<=', '<', '>=', '>'],
  ['+', '-'],
  ['*', '/', '%'],
  ['^'],
];

const TOKEN =
  /\s*(?:(?<duration>\d+(?:ms|[smhdwy])(?![a-z]))|(?<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?<string>"(?:[^"\\]|\\.)*")|(?<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?<mark>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}[\],]))/y;

interface Token {
  readonly kind: string;
  readonly text: string;
}

export function readPromQl(text: string): Query {
  return new Reader(tokenize(text), text).read();
}

function tokenize(text: string): readonly Token[] {
  const tokens: Token[] = [];
  const pattern = new RegExp(TOKEN);
  while (pattern.lastIndex < text.trimEnd().length) {
    const at = pattern.lastIndex;
    const found = pattern.exec(text);
    const groups: Readonly<Record<string, string | undefined>> = found?.groups ?? {};
    const entry = Object.entries(groups).find(([, value]) => value !== undefined);
    if (entry === undefined) throw new SyntaxError(`No token at "${text.slice(at)}"`);
    tokens.push({ kind: entry[0], text: entry[1] ?? '' });
  }
  return tokens;
}

class Reader {
  readonly #tokens: readonly Token[];
  readonly #text: string;
  readonly #selectors: Selector[] = [];
  readonly #groupings: string[] = [];
  #at = 0;

  constructor(tokens: readonly Token[], text: string) {
    this.#tokens = tokens;
    this.#text = text;
  }

  read(): Query {
    const kind = this.#binary(0);
    if (this.#at < this.#tokens.length) this.#fail('the end');
    if (kind !== 'instant' && kind !== 'scalar') this.#fail('a value, not a range');
    return { selectors: this.#selectors, groupings: this.#groupings };
  }

  #binary(level: number): Kind {
    const operators = BINARY[level];
    if (operators === undefined) return this.#unary();
    let left = this.#binary(level + 1);
    while (operators.includes(this.#peek())) {
      this.#at++;
      this.#accept('bool');
      if (this.#accept('on') || this.#accept('ignoring')) {
        this.#names();
        if ((this.#accept('group_left') || this.#accept('group_right')) && this.#peek() === '(')
          this.#names();
      }
      const right = this.#binary(level + 1);
      for (const side of [left, right]) if (side === 'range' || side === 'string') this.#fail('a value');
      left = left === 'instant' || right === 'instant' ? 'instant' : 'scalar';
    }
    return left;
  }

  #unary(): Kind {
    this.#accept('-');
    const token = this.#tokens[this.#at++];
    if (token?.kind === 'number') return 'scalar';
    if (token?.kind === 'string') return 'string';
    if (token?.kind === 'name') return this.#named(token.text);
    if (token?.text !== '(') return this.#fail('an expression');
    const kind = this.#binary(0);
    this.#expect(')');
    return kind;
  }

  #named(name: string): Kind {
    if (AGGREGATIONS.includes(name)) return this.#aggregation();
    if (RANGE_FUNCTIONS.includes(name)) {
      const first = this.#selectors.length;
      if (this.#arguments().join() !== 'range') this.#fail(`one range as argument of ${name}`);
      const inner = this.#selectors[first];
      if (inner !== undefined) this.#selectors[first] = { ...inner, ranged: name };
      return 'instant';
    }
    if (INSTANT_FUNCTIONS.includes(name)) {
      if (this.#arguments().includes('range')) this.#fail(`no range as argument of ${name}`);
      return name === 'time' ? 'scalar' : 'instant';
    }
    if (this.#peek() === '(') return this.#fail(`a function instead of ${name}`);
    return this.#selector(name);
  }

  #aggregation(): Kind {
    const isGrouped = this.#grouping();
    if (this.#arguments().includes('range')) this.#fail('no range in an aggregation');
    if (!isGrouped) this.#grouping();
    return 'instant';
  }

  #grouping(): boolean {
    if (!this.#accept('by') && !this.#accept('without')) return false;
    this.#names();
    return true;
  }

  #selector(metric: string): Kind {
    const labels: string[] = [];
    if (this.#accept('{')) {
      while (!this.#accept('}')) {
        labels.push(this.#take('name'));
        if (!['=', '!=', '=~', '!~'].some((operator) => this.#accept(operator))) this.#fail('a matcher');
        this.#take('string');
        if (!this.#accept(',') && this.#peek() !== '}') this.#fail('"}"');
      }
    }
    this.#selectors.push({ metric, labels });
    if (!this.#accept('[')) return 'instant';
    this.#take('duration');
    this.#expect(']');
    return 'range';
  }

  #names(): void {
    this.#expect('(');
    while (!this.#accept(')')) {
      this.#groupings.push(this.#take('name'));
      if (!this.#accept(',') && this.#peek() !== ')') this.#fail('")"');
    }
  }

  #arguments(): readonly Kind[] {
    const kinds: Kind[] = [];
    this.#expect('(');
    while (!this.#accept(')')) {
      kinds.push(this.#binary(0));
      if (!this.#accept(',') && this.#peek() !== ')') this.#fail('")"');
    }
    return kinds;
  }

  #peek(): string {
    const token = this.#tokens[this.#at];
    return token === undefined || token.kind === 'string' ? '' : token.text;
  }

  #accept(text: string): boolean {
    if (this.#peek() !== text) return false;
    this.#at++;
    return true;
  }

  #expect(text: string): void {
    if (!this.#accept(text)) this.#fail(`"${text}"`);
  }

  #take(kind: string): string {
    const token = this.#tokens[this.#at];
    if (token?.kind !== kind) return this.#fail(kind);
    this.#at++;
    return token.text;
  }

  #fail(expected: string): never {
    const rest = this.#tokens.slice(this.#at).map(({ text }) => text);
    throw new SyntaxError(`Expected ${expected} before "${rest.join(' ')}" in: ${this.#text}`);
  }
}
