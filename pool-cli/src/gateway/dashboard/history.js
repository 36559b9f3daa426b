// The last hour of the pool, second by second, in the columns that the plots want.

const KEPT = 3600;

const COLUMNS = ['active', 'idle', 'waiting', 'avg', 'p95', 'utilization'];

export class History {
  /** Seconds since 1970, ascending. */
  #times = [];
  #columns = Object.fromEntries(COLUMNS.map((name) => [name, []]));

  /** Begins anew with what `/api/history` answers. */
  replace(points) {
    this.#times = [];
    for (const name of COLUMNS) this.#columns[name] = [];
    for (const point of points) {
      this.#add(point.at_ms, [
        point.active, point.idle, point.waiting, point.avg_wait_ms, point.p95_wait_ms, point.utilization,
      ]);
    }
  }

  /** Adds a state of `/api/stream`. */
  add({ at_ms: at, load, wait }) {
    this.#add(at, [load.leased, load.idle, load.waiting, wait.avg_ms, wait.p95_ms, load.utilization]);
  }

  /** The times since `from`, and the values of these columns at each of them. */
  since(from, names) {
    let first = this.#times.findIndex((time) => time >= from);
    if (first < 0) first = this.#times.length;
    // One before, so that lines come in from the edge.
    first = Math.max(0, first - 1);
    return [this.#times.slice(first), ...names.map((name) => this.#columns[name].slice(first))];
  }

  #add(at, values) {
    const time = at / 1000;
    // The clock of a machine may be set back.
    if (this.#times.length > 0 && time <= this.#times.at(-1)) return;
    this.#times.push(time);
    COLUMNS.forEach((name, index) => this.#columns[name].push(values[index]));
    if (this.#times.length > KEPT) {
      this.#times.shift();
      for (const name of COLUMNS) this.#columns[name].shift();
    }
  }
}
