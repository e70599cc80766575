import { TOP_SORTS, type TopModel } from './top-model.js';

/** A key by name, or the character that it types. */
export type Key =
  | { readonly name: 'ctrl-c' | 'enter' | 'escape' | 'backspace' | 'up' | 'down' | 'page-up' | 'page-down' }
  | { readonly name: 'character'; readonly text: string };

/** What must be done besides showing the new model. `ask`: the data does not fit it any more. */
export type TopEffect = 'none' | 'ask' | 'quit';

export interface TopStep {
  readonly model: TopModel;
  readonly effect: TopEffect;
}

const FILTER_LENGTH = 64;
const PAGE = 10;

const SEQUENCES: Readonly<Record<string, Key>> = {
  '\u001b[A': { name: 'up' },
  '\u001bOA': { name: 'up' },
  '\u001b[B': { name: 'down' },
  '\u001bOB': { name: 'down' },
  '\u001b[5~': { name: 'page-up' },
  '\u001b[6~': { name: 'page-down' },
  '\u0003': { name: 'ctrl-c' },
  '\r': { name: 'enter' },
  '\n': { name: 'enter' },
  '\u001b': { name: 'escape' },
  '\u007f': { name: 'backspace' },
  '\b': { name: 'backspace' },
};

// CSI and SS3 sequences (ECMA-48, 5.4), else one character.
const TOKEN = /\u001b\[[0-?]*[ -/]*[@-~]|\u001bO[A-Za-z]|[^]/gu;

/** Keys in what a terminal in raw mode sent; sequences of keys that mean nothing here are left out. */
export function decodeKeys(input: string): readonly Key[] {
  return (input.match(TOKEN) ?? []).flatMap((token): readonly Key[] => {
    const known = SEQUENCES[token];
    if (known !== undefined) return [known];
    return /^[\u0000-\u001f]/.test(token) ? [] : [{ name: 'character', text: token }];
  });
}

/** What a key does. Pure. */
export function pressKey(model: TopModel, key: Key): TopStep {
  if (key.name === 'ctrl-c') return { model, effect: 'quit' };
  if (model.typing !== undefined) return typeFilter(model, model.typing, key);
  if (model.help) {
    return { model: { ...model, help: false }, effect: isCharacter(key, 'q') ? 'quit' : 'none' };
  }
  switch (key.name) {
    case 'up':
      return scrolled(model, -1);
    case 'down':
      return scrolled(model, 1);
    case 'page-up':
      return scrolled(model, -PAGE);
    case 'page-down':
      return scrolled(model, PAGE);
    case 'escape':
      return model.filter === ''
        ? shown(model)
        : { model: { ...model, filter: '', scroll: 0 }, effect: 'ask' };
    case 'enter':
    case 'backspace':
      return shown(model);
    case 'character':
      return command(model, key.text);
  }
}

function command(model: TopModel, text: string): TopStep {
  switch (text) {
    case 'q':
      return { model, effect: 'quit' };
    case 'b':
      return shown({ ...model, panes: model.panes === 'backends' ? 'both' : 'backends' });
    case 'f':
      return shown({ ...model, panes: model.panes === 'flows' ? 'both' : 'flows' });
    case 's': {
      const next = TOP_SORTS[(TOP_SORTS.indexOf(model.sort) + 1) % TOP_SORTS.length] ?? 'age';
      return { model: { ...model, sort: next, scroll: 0 }, effect: 'ask' };
    }
    case '/':
      return shown({ ...model, typing: model.filter });
    case 'p':
      return { model: { ...model, paused: !model.paused }, effect: model.paused ? 'ask' : 'none' };
    case '?':
    case 'h':
      return shown({ ...model, help: true });
    case 'k':
      return scrolled(model, -1);
    case 'j':
      return scrolled(model, 1);
    default:
      return shown(model);
  }
}

function typeFilter(model: TopModel, typed: string, key: Key): TopStep {
  const rest = { ...model, typing: undefined };
  switch (key.name) {
    case 'enter':
      return { model: { ...rest, filter: typed.trim(), scroll: 0 }, effect: 'ask' };
    case 'escape':
      return shown(rest);
    case 'backspace':
      return shown({ ...rest, typing: typed.slice(0, -1) });
    case 'character':
      return shown({ ...rest, typing: `${typed}${key.text}`.slice(0, FILTER_LENGTH) });
    case 'ctrl-c':
      return { model, effect: 'quit' };
    case 'up':
    case 'down':
    case 'page-up':
    case 'page-down':
      return shown(model);
  }
}

function scrolled(model: TopModel, by: number): TopStep {
  const last = Math.max(0, (model.data?.flows.flows.length ?? 0) - 1);
  return shown({ ...model, scroll: Math.min(last, Math.max(0, model.scroll + by)) });
}

function shown(model: TopModel): TopStep {
  return { model, effect: 'none' };
}

function isCharacter(key: Key, text: string): boolean {
  return key.name === 'character' && key.text === text;
}
