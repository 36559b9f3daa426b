// The live view: what a leased browser shows, a picture a second.

import { endLease } from './actions.js';
import { getJson, request } from './api.js';
import { byId, setText } from './dom.js';

const INTERVAL = 1_000;

export class LiveView {
  #dialog = byId('live');
  #image = byId('live-image');
  /** The browser and the lease that are looked at; null while it is closed. */
  #browser = null;
  #controller = null;
  #picture = null;

  constructor() {
    this.#dialog.addEventListener('close', () => this.#stop());
    byId('live-end').addEventListener('click', () => {
      const browser = this.#browser;
      if (browser) endLease(browser);
    });
  }

  open(browser) {
    if (browser.lease === null || this.#browser) return;
    this.#browser = browser;
    this.#controller = new AbortController();
    setText(byId('live-title'), `Browser ${browser.id}`);
    setText(byId('live-url'), '');
    this.#image.hidden = true;
    this.#say('Waiting for the first picture');
    byId('live-end').hidden = false;
    this.#dialog.showModal();
    this.#watch(browser.id, this.#controller.signal);
  }

  /** Notices that the lease is over: the browser may be another client's by now. */
  show(browsers) {
    if (!this.#browser) return;
    const { id, lease } = this.#browser;
    const now = browsers.find((browser) => browser.id === id);
    if (now?.lease?.id !== lease.id) this.#over();
  }

  async #watch(id, signal) {
    while (!signal.aborted) {
      const next = new Promise((resolve) => { setTimeout(resolve, INTERVAL); });
      try {
        const [page, answer] = await Promise.all([
          getJson(`api/browsers/${id}/page`, { signal }),
          request(`api/browsers/${id}/screenshot`, { signal }),
        ]);
        const picture = await answer.blob();
        if (signal.aborted) return;
        this.#draw(id, page, picture);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 404) this.#over();
        else this.#say(error.message);
      }
      await next;
    }
  }

  #draw(id, page, picture) {
    setText(byId('live-title'), page?.title || `Browser ${id}`);
    setText(byId('live-url'), page?.url ?? '');
    this.#forget();
    this.#picture = URL.createObjectURL(picture);
    this.#image.src = this.#picture;
    this.#image.hidden = false;
    this.#say('');
  }

  /** The last picture stays, and says that it is the last. */
  #over() {
    this.#controller.abort();
    byId('live-end').hidden = true;
    this.#say('The lease is over');
  }

  #stop() {
    this.#controller?.abort();
    this.#browser = null;
    this.#image.removeAttribute('src');
    this.#forget();
  }

  #forget() {
    if (this.#picture) URL.revokeObjectURL(this.#picture);
    this.#picture = null;
  }

  #say(text) {
    setText(byId('live-message'), text);
    byId('live-message').hidden = text === '';
  }
}
