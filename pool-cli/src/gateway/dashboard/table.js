// A table whose rows follow a list: a row that stays is changed in place, so that the focus, a selection
// and the pointer's target outlive the second.

import { element, setAttribute, setText } from './dom.js';
import { NOTHING } from './format.js';

/**
 * A column is `{ label, text(row) }`, or `{ label, make(current), update(node, row) }` for what is more than
 * a text: `current()` is the row as it is when something is clicked. `hint(row)` is the cell's tooltip,
 * `kind` its class.
 */
export class Table {
  #columns;
  #key;
  #mark;
  #pick;
  #rows = new Map();
  #body;
  #empty;

  /** `key` tells rows apart; `mark` sets what the row itself shows, `pick` gets one that is clicked on. */
  constructor(table, columns, { key, empty, mark, pick }) {
    this.#columns = columns;
    this.#key = key;
    this.#mark = mark;
    this.#pick = pick;
    const headings = columns.map(({ label, kind, quiet }) => element(
      'th', { scope: 'col', role: 'columnheader', class: kind },
      quiet ? element('span', { class: 'hidden' }, label) : label,
    ));
    this.#body = element('tbody', { role: 'rowgroup' });
    const row = { class: 'empty', role: 'row' };
    this.#empty = element('tr', row, element('td', { colspan: columns.length, role: 'cell' }, empty));
    // The roles stay where a narrow screen lays the cells out as cards.
    table.setAttribute('role', 'table');
    table.append(
      element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' }, ...headings)),
      this.#body,
    );
  }

  update(list) {
    const kept = new Set(list.map(this.#key));
    for (const [key, { node }] of this.#rows) {
      if (kept.has(key)) continue;
      node.remove();
      this.#rows.delete(key);
    }
    let place = this.#body.firstChild;
    for (const value of list) {
      const key = this.#key(value);
      const row = this.#rows.get(key) ?? this.#add(key);
      row.value = value;
      this.#fill(row);
      if (row.node === place) place = place.nextSibling;
      else this.#body.insertBefore(row.node, place);
    }
    if (list.length === 0) this.#body.append(this.#empty);
    else this.#empty.remove();
  }

  #add(key) {
    const row = { value: undefined };
    const current = () => row.value;
    const cell = ({ label, kind, make }) => {
      const attributes = { role: 'cell', class: kind, 'data-label': label };
      return element('td', attributes, ...(make ? [make(current)] : []));
    };
    row.cells = this.#columns.map(cell);
    row.node = element('tr', { role: 'row' }, ...row.cells);
    if (this.#pick) {
      row.node.addEventListener('click', ({ target }) => { if (!target.closest('button')) this.#pick(row.value); });
    }
    this.#rows.set(key, row);
    return row;
  }

  #fill({ node, cells, value }) {
    this.#mark?.(node, value);
    this.#columns.forEach((column, index) => {
      const cell = cells[index];
      if (column.make) column.update?.(cell.firstChild, value);
      else setText(cell, column.text(value));
      cell.classList.toggle('nothing', cell.textContent === NOTHING);
      if (column.hint) setAttribute(cell, 'title', column.hint(value));
    });
  }
}
