import type { ApiError } from './api.js';
import { h, useEffect, useRef, useState, type Attributes, type Child } from 'htm/preact/standalone';

/** A value with its text, or a word that is both. */
type Option<V extends string> = V | readonly [value: V, text: string];

function pairs<V extends string>(options: readonly Option<V>[]): readonly (readonly [V, string])[] {
  return options.map((option) => (typeof option === 'string' ? [option, option] : option));
}

interface Choice<V extends string> {
  label: string;
  name?: string;
  value: V;
  options: readonly Option<V>[];
  onSet: (value: V) => void;
}

export function Select<V extends string>({ label, name, value, options, onSet }: Choice<V>) {
  return (
    <label>
      {label}
      <select name={name} value={value} onChange={(event) => onSet(event.currentTarget.value as V)}>
        {pairs(options).map(([one, text]) => (
          <option key={one} value={one}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

export function RadioGroup<V extends string>({ label, name, value, options, onSet }: Choice<V>) {
  return (
    <fieldset>
      <legend>{label}</legend>
      {pairs(options).map(([one, text]) => (
        <label class="choice" key={one}>
          <input type="radio" name={name} value={one} checked={one === value} onChange={() => onSet(one)} />
          {text}
        </label>
      ))}
    </fieldset>
  );
}

export function TextField({
  label,
  onSet,
  ...attributes
}: { label: string; onSet?: (value: string) => void } & Attributes<HTMLInputElement>) {
  return (
    <label>
      {label}
      <input autocomplete="off" {...attributes} onInput={(event) => onSet?.(event.currentTarget.value)} />
    </label>
  );
}

/** One that submits no form. */
export function Button({ text, ...attributes }: { text: string } & Attributes<HTMLButtonElement>) {
  return (
    <button type="button" {...attributes}>
      {text}
    </button>
  );
}

/** A cell of a table, with small text below and a tooltip. */
export type CellText = readonly [label: string, text: Child, more?: string | undefined, title?: string];

/** Cells of a row. Where the page is narrow, a row is a card and each cell shows its label. */
export function cells(texts: readonly CellText[]): Child {
  return texts.map(([label, text, more, title]) => (
    <td key={label} data-label={label} title={title}>
      {text}
      {more !== undefined && <small>{more}</small>}
    </td>
  ));
}

/**
 * A modal dialog with one form. The browser keeps the focus inside and gives it back to where it was. It closes when
 * `onSubmit` resolves, and shows the error when that rejects. `onClose` is called once it has closed. `required`: it
 * cannot be dismissed.
 */
export function Dialog(props: {
  title: string;
  confirm: string;
  required?: boolean;
  onSubmit: () => Promise<void>;
  onClose: () => void;
  children: Child;
}) {
  const { title, confirm, required, onSubmit, onClose, children } = props;
  const dialog = useRef<HTMLDialogElement | null>(null);
  const answered = useRef(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError>();

  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    element?.querySelector<HTMLElement>('input:checked, input:not([type=radio]), button')?.focus();
    return () => element?.close();
  }, []);

  async function submit(): Promise<void> {
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await onSubmit();
      answered.current = true;
      dialog.current?.close();
    } catch (refusal) {
      setBusy(false);
      setError(refusal as ApiError);
    }
  }

  // A browser closes a dialog on the second Escape whatever the page says: one that needs an answer opens again.
  function closed(): void {
    if (required && !answered.current) dialog.current?.showModal();
    else onClose();
  }

  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" onClose={closed}>
      <form onSubmit={(event) => (event.preventDefault(), void submit())}>
        <h2 id="dialog-title">{title}</h2>
        {children}
        <p class="failure" role="alert">
          {error?.text}
        </p>
        <div class="buttons">
          {!required && <Button text="Keep as it is" onClick={() => dialog.current?.close()} />}
          <button type="submit" class="primary" disabled={busy}>
            {busy ? 'One moment …' : confirm}
          </button>
        </div>
      </form>
    </dialog>
  );
}
