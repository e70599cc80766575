import { html, useEffect, useRef } from './htm-preact.js';

/**
 * A modal dialog with one form. The browser keeps the focus inside and gives it back to where it was. `onSubmit`
 * resolves to true when the dialog may close. `onClose` is called once it has. `required`: there is no way around it.
 */
export function Dialog({ title, confirm, busy, error, onSubmit, onClose, required, children }) {
  const dialog = useRef(null);
  const answered = useRef(false);
  useEffect(() => {
    const element = dialog.current;
    element.showModal();
    element.querySelector('input:checked, input:not([type=radio]), button')?.focus();
    return () => element.close();
  }, []);

  async function submit(event) {
    event.preventDefault();
    if (busy || !(await onSubmit())) return;
    answered.current = true;
    dialog.current?.close();
  }

  // Escape cannot be refused for ever: what must be answered opens again.
  function closed() {
    if (required && !answered.current) dialog.current?.showModal();
    else onClose();
  }

  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${closed}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <p class="failure" role="alert">${error === undefined ? '' : `${error.message} (${error.code})`}</p>
      <div class="buttons">
        ${!required && html`<button type="button" onClick=${() => dialog.current.close()}>Keep as it is</button>`}
        <button type="submit" class="primary" disabled=${busy}>${busy ? 'One moment …' : confirm}</button>
      </div>
    </form>
  </dialog>`;
}
