// All browsers as one bar, by their states.

import { byId, element, setText } from './dom.js';

const STATES = ['leased', 'recycling', 'checking', 'creating', 'closing', 'idle', 'free'];

export class States {
  #parts;

  constructor() {
    this.#parts = STATES.map((state) => {
      const bar = element('span', { 'data-state': state });
      const number = element('b');
      const label = element('li', {}, element('span', { class: 'dot', 'data-state': state, 'aria-hidden': 'true' }), number, ` ${state}`);
      byId('states-bar').append(bar);
      byId('states').append(label);
      return { state, bar, number, label };
    });
  }

  show(load) {
    const free = Math.max(0, load.max_size - load.total);
    for (const { state, bar, number, label } of this.#parts) {
      const browsers = state === 'free' ? free : load[state];
      bar.style.flexGrow = browsers;
      bar.hidden = browsers === 0;
      // The passing states are named only while there are such browsers.
      label.hidden = browsers === 0 && !['leased', 'idle', 'free'].includes(state);
      setText(number, String(browsers));
    }
  }
}
