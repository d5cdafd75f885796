// Line charts in SVG. One drawing area per metric; what all charts of a page share (smoothing, scale, axis, cursor, zoom) is a Lens.

import { h, svg } from './dom.js';
import * as format from './format.js';

const kept = { smoothing: 'memopt.smoothing', log: 'memopt.log', axis: 'memopt.axis' };
const margin = { left: 62, right: 26, top: 10, bottom: 24 };
const height = 220;

/** Values of which two can be subtracted: beyond them the difference is no number. */
const bounded = value => Math.min(8e307, Math.max(-8e307, value));

/** How curves are looked at. Charts redraw when it changes. */
export class Lens {
  constructor() {
    this.smoothing = Math.min(0.99, Math.max(0, Number(localStorage.getItem(kept.smoothing) ?? 0)));
    this.log = localStorage.getItem(kept.log) === 'true';
    this.axis = localStorage.getItem(kept.axis) === 'time' ? 'time' : 'step';
    this.cursor = null;
    this.zoom = null;
    this.charts = new Set();
  }

  set(changes) {
    Object.assign(this, changes);
    for (const [name, key] of Object.entries(kept))
      localStorage.setItem(key, this[name]);
    this.charts.forEach(chart => chart.draw());
    this.changed?.();
  }

  point(cursor) {
    this.cursor = cursor;
    this.charts.forEach(chart => chart.read());
  }
}

/** The controls of a lens. */
export function controls(lens) {
  const amount = h('output', { for: 'smoothing' });
  const range = h('input', { type: 'range', id: 'smoothing', min: 0, max: 0.99, step: 0.01, value: lens.smoothing, oninput: () => lens.set({ smoothing: Number(range.value) }) });
  const log = h('input', { type: 'checkbox', id: 'log', onchange: () => lens.set({ log: log.checked }) });
  const axis = ['step', 'time'].map(name => h('label', {}, h('input', { type: 'radio', name: 'axis', value: name, checked: lens.axis === name, onchange: () => lens.set({ axis: name, zoom: null }) }), name));
  const reset = h('button', { type: 'button', class: 'reset', onclick: () => lens.set({ zoom: null }) }, 'Show all');
  lens.changed = () => {
    amount.textContent = lens.smoothing.toFixed(2);
    range.value = lens.smoothing;
    log.checked = lens.log;
    reset.hidden = lens.zoom === null;
  };
  lens.changed();
  return h('div', { class: 'controls', role: 'group', 'aria-label': 'Curves' },
    h('span', { class: 'control' }, h('label', { for: 'smoothing' }, 'Smoothing'), range, amount),
    h('span', { class: 'control' }, log, h('label', { for: 'log' }, 'Log scale')),
    h('fieldset', { class: 'control' }, h('legend', {}, 'Against'), axis),
    reset);
}

/**
 * Exponential moving average that starts unbiased: the weights of the first values are scaled up to one. A point that stands for several decays the past as much
 * as all of them would.
 */
export function smoothed(values, decay, per = 1) {
  const keep = decay ** per;
  let sum = 0, weight = 0;
  return values.map(value => {
    if (!Number.isFinite(value))
      return value;
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

/** Round numbers over a range, about so many. */
export function ticks(low, high, about) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999) * power;
  const list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    list.push(Number((i * step).toPrecision(12)));
  return list;
}

function logTicks(low, high, unit) {
  const list = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const factor of high - low > 3 ? [1] : [1, 2, 5])
      list.push(factor * 10 ** power);
  const inside = list.filter(value => Math.log10(value) >= low && Math.log10(value) <= high);
  return inside.length > 1 ? inside : ticks(10 ** low / unit, 10 ** high / unit, 4).filter(value => value > 0).map(value => value * unit);
}

/** One chart. Its series are { name, label, letter, look, curve }, curve as Curves has it; look numbers colour and dashes. */
export class Chart {
  constructor(title, lens, unit = title) {
    Object.assign(this, { title, lens, unit, series: [], width: 0 });
    this.legend = h('div', { class: 'legend' });
    this.lines = svg('g');
    this.marks = svg('g', { class: 'cursor' });
    this.frame = svg('svg', { class: 'plot', role: 'img', tabindex: 0, height, 'aria-label': title }, this.lines, this.marks);
    this.note = h('p', { class: 'note' });
    this.element = h('figure', { class: 'chart' }, h('figcaption', {}, h('h3', {}, title), this.legend), this.frame, this.note);
    this.size = new ResizeObserver(() => {
      const width = Math.round(this.element.clientWidth);
      if (width !== this.width && width > 0) {
        this.width = width;
        this.draw();
      }
    });
    this.size.observe(this.element);
    lens.charts.add(this);
    this.listen();
  }

  close() {
    this.size.disconnect();
    this.lens.charts.delete(this);
  }

  show(series) {
    this.series = series;
    this.draw();
  }

  /** Where points lie on the horizontal axis: steps, or seconds since the first point of their run. */
  xs(curve) {
    return this.lens.axis === 'step' ? curve.steps : curve.times.map(time => (time - curve.start) / 1000);
  }

  draw() {
    if (this.width === 0)
      return;
    const { lens } = this, log = lens.log;
    this.drawn = this.series.filter(one => one.curve && one.curve.steps.length > 0).map(one => {
      const x = this.xs(one.curve), fine = lens.smoothing > 0 && one.curve.steps.length > 2;
      return { ...one, x, raw: one.curve.values, y: fine ? smoothed(one.curve.values, lens.smoothing, one.curve.per) : one.curve.values, fine };
    });
    const [left, right] = lens.zoom ?? this.extent();
    const inside = one => one.raw.filter((value, i) => one.x[i] >= left && one.x[i] <= right && Number.isFinite(value) && (!log || value > 0));
    const values = this.drawn.flatMap(inside).map(bounded);
    let low = values.length > 0 ? values.reduce((a, b) => Math.min(a, b)) : log ? 0.1 : 0, high = values.length > 0 ? values.reduce((a, b) => Math.max(a, b)) : 1;
    if (log)
      [low, high] = [Math.log10(low), Math.log10(high)];
    const room = high > low ? (high - low) * 0.06 : Math.max(Math.abs(high) * 0.05, log ? 0.05 : 1e-9);
    [low, high] = [low - room, high + room];
    const inner = { width: Math.max(10, this.width - margin.left - margin.right), height: height - margin.top - margin.bottom };
    this.px = x => margin.left + (right > left ? (x - left) / (right - left) : 0.5) * inner.width;
    this.back = px => left + (px - margin.left) / inner.width * (right - left);
    this.py = y => margin.top + (1 - ((log ? Math.log10(y) : bounded(y)) - low) / (high - low)) * inner.height;
    this.frame.setAttribute('width', this.width);
    this.frame.setAttribute('viewBox', `0 0 ${this.width} ${height}`);

    const unit = this.scale = this.unit !== 'memory_bytes' ? 1 : (log ? 10 ** high - 10 ** low : high - low) >= 2 ** 28 ? 2 ** 30 : 2 ** 20;
    const grid = [], tickX = ticks(left, right > left ? right : left + 1, Math.max(4, Math.floor(inner.width / 80))), tickY = log ? logTicks(low, high, unit) : ticks(low / unit, high / unit, 4).map(value => value * unit);
    for (const value of tickY) {
      const y = this.py(value);
      grid.push(svg('line', { class: 'grid', x1: margin.left, x2: this.width - margin.right, y1: y, y2: y }), svg('text', { class: 'tick', x: margin.left - 8, y: y + 3.5, 'text-anchor': 'end' }, this.tick(value)));
    }
    for (const value of tickX) {
      const x = this.px(value);
      if (x <= this.width - margin.right + 1)
        grid.push(svg('line', { class: 'tickmark', x1: x, x2: x, y1: height - margin.bottom, y2: height - margin.bottom + 4 }), svg('text', { class: 'tick', x, y: height - 6, 'text-anchor': 'middle' }, lens.axis === 'step' ? value.toLocaleString('en') : span(value)));
    }
    grid.push(svg('line', { class: 'axis', x1: margin.left, x2: this.width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
    const clip = `clip-${this.number ??= Chart.count = (Chart.count ?? 0) + 1}`;
    const body = svg('g', { 'clip-path': `url(#${clip})` });
    const letters = [];
    let lost = 0, broken = 0;
    for (const one of this.drawn) {
      const visible = i => one.x[i] >= left && one.x[i] <= right;
      const draw = (tag, kind, place) => body.append(dressed(svg(tag, { class: `series ${kind}`, ...place }), one.look));
      if (one.fine)
        draw('path', 'faint', { d: this.path(one.x, one.raw, log) });
      draw('path', '', { d: this.path(one.x, one.y, log) });
      const few = one.raw.length <= 24;
      one.raw.forEach((value, i) => {
        if (!visible(i))
          return;
        const x = this.px(one.x[i]);
        if (!Number.isFinite(value)) {
          // A cross where numbers end, and a line along the foot until they are back.
          broken++;
          const foot = height - margin.bottom - 6;
          if (i > 0 && visible(i - 1) && !Number.isFinite(one.raw[i - 1]))
            draw('line', 'broken', { x1: this.px(one.x[i - 1]), x2: x, y1: foot, y2: foot });
          else
            draw('path', 'broken', { d: `M${x - 3.5} ${foot - 3.5}l7 7m0 -7l-7 7` });
        } else if (log && value <= 0)
          lost++;
        else if (few)
          draw('circle', 'dot', { cx: x, cy: this.py(value), r: one.raw.length === 1 ? 4 : 2.6 });
      });
      if (one.letter) {
        const last = one.y.findLastIndex((value, i) => visible(i) && Number.isFinite(value) && (!log || value > 0));
        if (last >= 0)
          letters.push({ text: one.letter, look: one.look, x: this.px(one.x[last]) + 6, y: this.py(one.y[last]) + 4 });
      }
    }
    // Letters of curves that end at one place are drawn below each other.
    letters.sort((a, b) => a.y - b.y).forEach((letter, i) => letter.y = i > 0 && Math.abs(letter.x - letters[i - 1].x) < 10 ? Math.max(letter.y, letters[i - 1].y + 12) : letter.y);
    const over = Math.max(0, (letters.at(-1)?.y ?? 0) - (height - margin.bottom));
    letters.forEach(letter => letter.y -= over);
    this.lines.replaceChildren(svg('clipPath', { id: clip }, svg('rect', { x: margin.left - 4, y: 0, width: inner.width + 8, height: height - margin.bottom + 1 })), ...grid, body,
      ...letters.map(letter => dressed(svg('text', { class: 'letter', x: letter.x, y: letter.y }, letter.text), letter.look)));
    this.note.textContent = [this.drawn.length === 0 ? 'No points yet.' : '', broken > 0 ? `× not a number, ${broken.toLocaleString('en')} ${broken === 1 ? 'point' : 'points'}` : '', lost > 0 ? `${lost} of 0 or less are not on a log scale` : ''].filter(Boolean).join(' · ');
    this.frame.setAttribute('aria-label', `${this.title}: ${this.drawn.map(one => `${one.label} last ${format.metric(this.unit, one.raw.at(-1))}`).join(', ') || 'no points yet'}`);
    this.read();
  }

  /** A curve, interrupted where there is no number. */
  path(xs, ys, log) {
    let d = '', pen = 'M';
    for (let i = 0; i < xs.length; i++) {
      if (!Number.isFinite(ys[i]) || log && ys[i] <= 0) {
        pen = 'M';
        continue;
      }
      d += `${pen}${this.px(xs[i]).toFixed(1)} ${this.py(ys[i]).toFixed(1)}`;
      pen = 'L';
    }
    return d;
  }

  extent() {
    const ends = this.drawn.flatMap(one => [one.x[0], one.x.at(-1)]);
    return ends.length > 0 ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
  }

  /** A number at the axis; bytes are counted in powers of two. */
  tick(value) {
    return this.unit === 'memory_bytes' ? `${(value / this.scale).toLocaleString('en', { maximumSignificantDigits: 6, useGrouping: false })} ${this.scale === 2 ** 30 ? 'GiB' : 'MiB'}` : value === 0 ? '0' : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(1).replace('.0e', 'e').replace('e+', 'e').replaceAll('-', '−') : value.toLocaleString('en', { maximumSignificantDigits: 5 }).replace('-', '−');
  }

  /** The legend: values at the cursor, or the last ones. */
  read() {
    if (!this.drawn)
      return;
    const { cursor } = this.lens, marks = [];
    const entries = this.drawn.map(one => {
      const at = cursor === null ? one.raw.length - 1 : nearest(one.x, cursor);
      if (cursor !== null && Number.isFinite(one.y[at]) && (!this.lens.log || one.y[at] > 0) && this.px(one.x[at]) >= margin.left - 1 && this.px(one.x[at]) <= this.width - margin.right + 1)
        marks.push(dressed(svg('circle', { class: 'series dot', cx: this.px(one.x[at]), cy: this.py(one.y[at]), r: 3.5 }), one.look));
      return h('span', { class: 'entry', title: one.label }, sample(one.look), one.letter ? h('b', {}, one.letter) : null, one.letter || one.label === this.title ? null : h('span', { class: 'label' }, one.label),
        one.fine && one.letter ? null : h('span', { class: 'value' }, format.metric(this.unit, one.raw[at])), one.fine ? h('span', { class: 'value smooth' }, `~${format.metric(this.unit, one.y[at])}`) : null);
    });
    if (cursor !== null && this.drawn.length > 0) {
      const x = this.px(cursor);
      if (x >= margin.left - 1 && x <= this.width - margin.right + 1)
        marks.unshift(svg('line', { class: 'hair', x1: x, x2: x, y1: margin.top, y2: height - margin.bottom }));
      entries.unshift(h('span', { class: 'entry at' }, this.lens.axis === 'step' ? `step ${Math.round(cursor).toLocaleString('en')}` : span(cursor)));
    }
    if (this.band)
      marks.push(svg('rect', { class: 'band', x: Math.min(...this.band), y: margin.top, width: Math.abs(this.band[1] - this.band[0]), height: height - margin.top - margin.bottom }));
    this.legend.replaceChildren(...entries);
    this.marks.replaceChildren(...marks);
  }

  listen() {
    const at = event => event.clientX - this.frame.getBoundingClientRect().left;
    const snap = px => {
      const all = this.drawn.flatMap(one => one.x.length > 0 ? [one.x[nearest(one.x, this.back(px))]] : []);
      return all.length > 0 ? all.reduce((a, b) => Math.abs(b - this.back(px)) < Math.abs(a - this.back(px)) ? b : a) : null;
    };
    this.frame.addEventListener('pointermove', event => {
      if (!this.drawn)
        return;
      if (this.band)
        this.band[1] = Math.min(this.width - margin.right, Math.max(margin.left, at(event)));
      this.lens.point(snap(at(event)));
    });
    this.frame.addEventListener('pointerleave', () => this.lens.point(null));
    this.frame.addEventListener('pointerdown', event => {
      if (event.pointerType === 'mouse' && event.button === 0 && this.drawn) {
        this.band = [at(event), at(event)];
        this.frame.setPointerCapture(event.pointerId);
      }
    });
    this.frame.addEventListener('pointerup', () => {
      const band = this.band;
      this.band = null;
      if (band && Math.abs(band[1] - band[0]) > 6)
        this.lens.set({ zoom: [this.back(Math.min(...band)), this.back(Math.max(...band))] });
      else
        this.read();
    });
    this.frame.addEventListener('dblclick', () => this.lens.set({ zoom: null }));
    this.frame.addEventListener('blur', () => this.lens.point(null));
    this.frame.addEventListener('keydown', event => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], x = this.drawn?.[0]?.x;
      if (!move || !x)
        return;
      event.preventDefault();
      const here = this.lens.cursor === null ? x.length - 1 : nearest(x, this.lens.cursor) + move * (event.shiftKey ? 10 : 1);
      this.lens.point(x[Math.min(x.length - 1, Math.max(0, here))]);
    });
  }
}

/** The line of a series, as it looks in charts: its dashes tell it apart without its colour. */
export const sample = look => svg('svg', { class: 'sample', width: 22, height: 8, 'aria-hidden': 'true' }, dressed(svg('line', { class: 'series', x1: 0, x2: 22, y1: 4, y2: 4 }), look));

/** Gives an element the colour and dashes of a look. Eight were chosen by hand; each after them has their dashes in a hue that none before it has. */
function dressed(element, look) {
  const chosen = 8, turn = 137.508;                          // degrees: the golden angle never comes back to where it was
  element.classList.add(`look-${look % chosen}`);
  if (look >= chosen) {
    const hue = ((look - chosen) * turn + 20) % 360;
    element.style.setProperty('--c', `light-dark(oklch(0.47 0.13 ${hue.toFixed(1)}), oklch(0.8 0.11 ${hue.toFixed(1)}))`);
  }
  return element;
}

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x)
      low = middle + 1;
    else
      high = middle;
  }
  return low > 0 && x - xs[low - 1] <= xs[low] - x ? low - 1 : low;
}

const span = seconds => seconds === 0 ? '0' : seconds < 120 ? `${Number(seconds.toPrecision(3))} s` : seconds < 7200 ? `${Number((seconds / 60).toPrecision(3))} min` : `${Number((seconds / 3600).toPrecision(3))} h`;
