// Questions to the person in front of the page.

import { byId } from './dom.js';

/** What a button does in all dialogs. */
export function prepareDialogs() {
  for (const button of document.querySelectorAll('dialog [data-close]')) {
    button.addEventListener('click', () => button.closest('dialog').close());
  }
}

/** Asks whether to do something; resolves to the answer. */
export function confirm({ title, text, action }) {
  byId('confirm-title').textContent = title;
  byId('confirm-text').textContent = text;
  byId('confirm-action').textContent = action;
  return new Promise((resolve) => {
    submitted(byId('confirm'), (close) => { resolve(true); close(); }, () => resolve(false));
  });
}

/** Asks for the sizes of the pool; `apply` does it, and throws what is shown in the dialog. */
export function askSize({ min_size: min, max_size: max }, apply) {
  const error = byId('resize-error');
  byId('min-size').value = min;
  byId('max-size').value = max;
  error.textContent = '';
  submitted(byId('resize-dialog'), async (close) => {
    try {
      await apply({ min_size: byId('min-size').valueAsNumber, max_size: byId('max-size').valueAsNumber });
      close();
    } catch (problem) {
      error.textContent = problem.message;
    }
  });
}

/** Shows a dialog with a form until it is closed; `submit` may leave it open. */
function submitted(dialog, submit, closed = () => {}) {
  const controller = new AbortController();
  const { signal } = controller;
  dialog.addEventListener('submit', (event) => {
    event.preventDefault();
    submit(() => dialog.close());
  }, { signal });
  dialog.addEventListener('close', () => { controller.abort(); closed(); }, { signal });
  dialog.showModal();
}
