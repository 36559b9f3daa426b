// The four plots.

import uPlot from './vendor/uplot/uPlot.esm.js';
import { byId, element, setAttribute, setText } from './dom.js';
import { NOTHING, clock, count, duration, percent } from './format.js';

const HEIGHT = 150;

/** Counts have no halves. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

const upTo = (least) => (_, __, max) => [0, Math.max(least, (max ?? 0) * 1.1)];

const PLOTS = [
  {
    title: 'Connections',
    series: [{ name: 'active', fill: true }, { name: 'idle' }],
    format: count, range: upTo(2), steps: WHOLE,
  },
  { title: 'Waiting queue', series: [{ name: 'waiting', fill: true }], format: count, range: upTo(2), steps: WHOLE },
  {
    title: 'Wait',
    series: [{ name: 'avg', label: 'average', fill: true }, { name: 'p95' }],
    format: duration, range: upTo(10),
  },
  { title: 'Utilization', series: [{ name: 'utilization', label: 'leased', fill: true }], format: percent, range: () => [0, 1] },
];

const LINES = [{ color: '--series-1', area: '--series-1-area' }, { color: '--series-2', dash: [5, 3] }];

/** A colour of the style sheet as it is now: the scheme may change while the page is open. */
const color = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The width of the axis that has these labels. */
const room = (_, labels) => 16 + 6.5 * Math.max(2, ...(labels ?? []).map((label) => label.length));

export class Plots {
  #plots;

  constructor() {
    const cards = byId('plots');
    this.#plots = PLOTS.map((plot) => new Plot(cards, plot));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const plot of this.#plots) plot.redraw();
    });
  }

  /** Shows the last `seconds` before `now`, both in seconds. */
  show(history, now, seconds) {
    for (const plot of this.#plots) plot.show(history, now, seconds);
  }
}

class Plot {
  #plot;
  #chart;
  #values;
  #span = [0, 1];
  #place = element('div', { class: 'plot', role: 'img' });

  constructor(cards, plot) {
    this.#plot = plot;
    this.#values = plot.series.map(() => element('b', {}, NOTHING));
    const legend = plot.series.map(({ name, label = name }, index) => element(
      'li', {}, element('span', { class: `swatch swatch-${index + 1}`, 'aria-hidden': 'true' }), `${label} `, this.#values[index],
    ));
    cards.append(element(
      'figure', { class: 'card', 'data-plot': plot.title },
      element('figcaption', {}, element('h3', {}, plot.title), element('ul', { class: 'legend' }, ...legend)),
      this.#place,
    ));
    this.#chart = new uPlot(this.#options(), [[], ...plot.series.map(() => [])], this.#place);
    new ResizeObserver(() => this.#fit()).observe(this.#place);
  }

  show(history, now, seconds) {
    this.#span = [now - seconds, now];
    this.#chart.setData(history.since(now - seconds, this.#plot.series.map(({ name }) => name)));
    this.#tell();
  }

  redraw() { this.#chart.redraw(); }

  #fit() { this.#chart.setSize({ width: this.#place.clientWidth, height: HEIGHT }); }

  /** Tells the values under the pointer, else the latest ones. */
  #tell() {
    const [times, ...columns] = this.#chart.data;
    const index = this.#chart.cursor.idx ?? times.length - 1;
    const values = columns.map((column) => this.#plot.format(column[index]));
    values.forEach((value, at) => setText(this.#values[at], value));
    const told = this.#plot.series.map(({ name, label = name }, at) => `${label} ${values[at]}`);
    setAttribute(this.#place, 'aria-label', `${this.#plot.title}: ${told.join(', ')}`);
  }

  #options() {
    const { series, format, range, steps } = this.#plot;
    const axis = {
      stroke: color('--muted'),
      font: `11px ${getComputedStyle(document.body).fontFamily}`,
      grid: { stroke: color('--grid'), width: 1 },
      ticks: { show: false },
    };
    const minutes = (seconds) => clock(seconds * 1000).slice(0, this.#span[1] - this.#span[0] > 120 ? 5 : 8);
    return {
      width: 300, height: HEIGHT, padding: [10, 20, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'plots' }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
      scales: { x: { range: () => this.#span }, y: { range } },
      axes: [
        { ...axis, space: 80, size: 28, gap: 6, values: (_, ticks) => ticks.map(minutes) },
        { ...axis, space: 34, size: room, gap: 6, incrs: steps, values: (_, ticks) => ticks.map(format) },
      ],
      series: [{}, ...series.map(({ fill }, index) => ({
        stroke: color(LINES[index].color),
        fill: fill ? color(LINES[index].area) : undefined,
        dash: LINES[index].dash,
        width: 1.75,
        points: { show: false },
        paths: steps ? uPlot.paths.stepped({ align: -1 }) : undefined,
      }))],
      hooks: { setCursor: [() => this.#chart && this.#tell()] },
    };
  }
}
