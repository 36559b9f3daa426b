// The token of the pool: asked for once, kept for this tab, never part of an address.

import { byId } from './dom.js';

const KEY = 'browser-pool-token';

let asking = null;

/** The token, or null while none was given. */
export const token = () => sessionStorage.getItem(KEY);

/** Asks for the token, unless somebody asks already; `refused` says that there was a wrong one. */
export function askToken(refused) {
  asking ??= ask(refused).finally(() => { asking = null; });
  return asking;
}

function ask(refused) {
  const dialog = byId('token-dialog');
  const input = byId('token');
  byId('token-error').textContent = refused ? 'This token is not valid here.' : '';
  input.value = '';
  return new Promise((resolve) => {
    // There is nothing behind it to go back to.
    const stay = (event) => event.preventDefault();
    const submit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.removeEventListener('cancel', stay);
      dialog.removeEventListener('submit', submit);
      dialog.close();
      resolve();
    };
    dialog.addEventListener('cancel', stay);
    dialog.addEventListener('submit', submit);
    dialog.showModal();
  });
}
