// Several runs over each other, and what tells them apart.

import { get, repeat } from './api.js';
import { Chart, Lens, controls, sample } from './chart.js';
import { Curves } from './curves.js';
import { h, put, scrolling } from './dom.js';
import * as format from './format.js';
import { groups, last, status } from './run.js';

const several = 6;

/** a to z, then aa, ab: no two runs have the same. */
export const letter = i => (i < 26 ? '' : letter(Math.floor(i / 26) - 1)) + String.fromCharCode(97 + i % 26);

export function open(main, { ids }, app) {
  const lens = new Lens(), curves = new Map(), charts = new Map();
  const cards = h('ul', { class: 'cards' }), plots = h('div', { class: 'charts' }), differences = h('div', { class: 'panel' }), values = h('div', { class: 'panel' });
  const more = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => { everything = true; draw(); } });
  let everything = false, all = null;

  const title = ids.length === 1 ? '1 run' : `${ids.length} runs`;
  main.replaceChildren(h('h1', {}, title), cards,
    h('section', { id: 'curves', 'aria-labelledby': 'curves-title' }, h('div', { class: 'bar' }, h('h2', { id: 'curves-title' }, 'Curves'), controls(lens)), plots, more),
    h('section', { id: 'values', 'aria-labelledby': 'values-title' }, h('h2', { id: 'values-title' }, 'Metrics'), values),
    h('section', { id: 'differences', 'aria-labelledby': 'differences-title' }, h('h2', { id: 'differences-title' }, 'What differs'), differences));

  /** Names that several runs have; those of an evaluation stand alone here, since each chart has a line for each run. */
  const names = () => [...new Set(all.runs.flatMap(one => Object.keys(one.metrics)))];

  function draw() {
    const order = groups(names()).flatMap(group => group.members), shown = order.filter(name => all.runs.some(one => (one.metrics[name]?.count ?? 0) > 1));
    const few = everything ? shown : shown.filter(name => !last.includes(name)).slice(0, several);
    for (const name of few) {
      if (!charts.has(name)) {
        charts.set(name, new Chart(name, lens, name.replace(/^eval_/, '')));
        plots.append(charts.get(name).element);
      }
      charts.get(name).show(all.runs.map(({ run }, i) => {
        const curve = curves.get(run.runId).of(name), start = Math.min(...names().map(other => curves.get(run.runId).of(other)?.times[0] ?? Infinity));
        return { name: run.runId, label: run.tags['mlflow.runName'] ?? run.runId, letter: letter(i), look: i, curve: curve && { ...curve, start } };
      }));
    }
    more.hidden = few.length === shown.length;
    more.textContent = `${shown.length - few.length} more`;
  }

  const heads = title => h('thead', {}, h('tr', {}, title.map(text => h('th', { scope: 'col' }, text)), all.runs.map(({ run }, i) => h('th', { scope: 'col', title: run.runId }, h('b', {}, letter(i)), ' ', h('span', { class: 'id' }, run.runId)))));

  function tables() {
    put(cards, all.runs.map(({ run, metrics }, i) => h('li', {}, h('span', { class: 'which' }, sample(i), h('b', {}, letter(i))), h('a', { href: `#/run/${encodeURIComponent(run.runId)}` }, run.tags['mlflow.runName'] ?? run.runId), status(run.status),
      h('span', { class: 'muted' }, run.experiment), h('span', { class: 'muted' }, metrics.eval_loss ? `eval loss ${format.number(metrics.eval_loss.last)}` : metrics.loss ? `loss ${format.number(metrics.loss.last)}` : ''))));
    put(values, scrolling('Metrics', h('table', { class: 'wide' }, heads(['Metric']), h('tbody', {}, groups(names()).flatMap(group => group.members).map(name => h('tr', {}, h('th', { scope: 'row' }, name),
      all.runs.map(({ metrics }) => {
        const m = metrics[name];
        return h('td', { class: 'number', title: m ? `from ${format.metric(name, m.min)} to ${format.metric(name, m.max)}` : null }, m ? format.metric(name, m.last) : '–');
      })))))));
    const rows = [];
    let section = '';
    const known = new Set(names());
    for (const { section: now, key, values: cells } of all.differences) {
      if (now === 'result' && known.has(key))
        continue;                                              // stands in the table above
      if (now !== section)
        rows.push(h('tr', { class: 'section' }, h('th', { scope: 'rowgroup', colspan: 1 + all.runs.length }, now)));
      section = now;
      rows.push(h('tr', {}, h('th', { scope: 'row' }, key), cells.map(cell => h('td', { title: cell }, cell === null ? '–' : now === 'memory' ? format.bytes(Number(cell)) : cell))));
    }
    put(differences, rows.length === 0 ? h('p', { class: 'empty' }, 'Nothing that was recorded.') : scrolling('What differs', h('table', { class: 'wide differences' }, heads(['Recorded']), h('tbody', {}, rows))));
  }

  const whole = [...main.children];
  app.show(main, title, 'compare');
  const end = repeat(1500, async () => {
    try {
      all = await get('compare', ids.map(id => ['run', id]));
    } catch (error) {
      if (all === null || error.status === 404) {
        main.replaceChildren(h('div', { class: 'nothing' }, h('h1', {}, 'These runs cannot be compared'), h('p', {}, error.message), h('a', { href: '#/' }, 'All runs')));
        return error.status !== 404;
      }
      throw error;
    }
    if (!whole[0].isConnected)
      main.replaceChildren(...whole);                      // it could not be had at first
    for (const { run, metrics } of all.runs) {
      if (!curves.has(run.runId))
        curves.set(run.runId, new Curves(run.runId));
      await curves.get(run.runId).follow(metrics, Object.keys(metrics));
    }
    draw();
    tables();
    return all.runs.some(({ run }) => run.status === 'running');
  });

  return {
    close: () => {
      end();
      charts.forEach(chart => chart.close());
    },
    key: key => key === 'l' && lens.set({ log: !lens.log }),
  };
}
