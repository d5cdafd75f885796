// The table of runs: filtered by the language of `runs list`, ordered by a click, opened or compared.

import { get, repeat } from './api.js';
import { h, put } from './dom.js';
import { add, parts, whole } from './filter.js';
import * as format from './format.js';
import { status } from './run.js';

const patience = 500;                                        // milliseconds to wait for runs that are still being taken in; it is asked again soon
const page = 50, atOnce = 500;                               // more than that are asked for in pieces

/** Columns that are always there when no others were chosen: title, name in an order, class, cell. */
const usual = [
  ['Status', 'status', 'is-status', run => status(run.status)],
  ['Run', 'run_id', 'is-run', null],
  ['Experiment', 'experiment', 'is-experiment', run => run.experiment],
  ['Started', 'start_time', 'is-started', run => h('time', { datetime: run.started, title: format.moment(run.started) }, format.ago(run.started))],
  ['Steps', 'step', 'is-steps', run => [progress(run), h('span', {}, run.totalSteps > 0 ? `${run.step.toLocaleString('en')} / ${run.totalSteps.toLocaleString('en')}` : run.step.toLocaleString('en'))]],
  ['Loss', 'metrics.loss', 'number is-loss', run => format.number(run.loss)],
  ['Eval loss', 'metrics.eval_loss', 'number is-eval', run => format.number(run.eval.loss)],
  ['Accuracy', 'metrics.eval_accuracy', 'number is-accuracy', run => run.eval.accuracy === undefined ? '–' : `${(100 * run.eval.accuracy).toFixed(1)} %`],
  ['Took', 'duration', 'number is-took', run => format.duration(((run.ended ? new Date(run.ended) : run.status === 'running' ? Date.now() : NaN) - new Date(run.started)) / 1000)],
];

function progress(run) {
  if (run.totalSteps <= 0)
    return null;
  const bar = h('span', { class: 'meter', 'aria-hidden': 'true' }, h('i', {}));
  bar.firstChild.style.width = `${Math.min(100, 100 * run.step / run.totalSteps)}%`;
  return bar;
}

const window = 60;                                           // characters of a filter before and after the place of a fault

export function open(main, { q }, app) {
  const input = h('input', { type: 'search', id: 'filter', spellcheck: false, autocomplete: 'off', autocapitalize: 'off', placeholder: "such as: metrics.eval_loss < 0.5 and params.adapter.rank = 16", value: q ?? '', oninput: () => later() });
  const wanted = h('input', { type: 'text', id: 'columns', spellcheck: false, autocomplete: 'off', placeholder: 'run_id, params.train.learningRate, min(metrics.loss)', value: localStorage.getItem('memopt.columns') ?? '', oninput: () => { localStorage.setItem('memopt.columns', wanted.value); later(); } });
  const problem = h('div', { class: 'problem', role: 'alert', hidden: true });
  const heads = h('tr', {}), body = h('tbody', {}), table = h('table', { class: 'runs' }, h('thead', {}, heads), body);
  const count = h('p', { class: 'count', role: 'status' }), nothing = h('div', { class: 'nothing', hidden: true }), more = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => { limit += page; ask(); } }, 'More');
  const chosen = h('div', { class: 'chosen', hidden: true });
  const suggestion = (title, change) => h('button', { type: 'button', class: 'chip', onclick: () => { input.value = change(input.value); ask(); } }, title);
  const and = condition => filter => add(filter, condition);
  const rows = new Map();
  let limit = page, timer, asked = 0, shown = '';

  main.replaceChildren(
    h('h1', { class: 'unseen' }, 'Runs'),
    h('form', { class: 'search', role: 'search', onsubmit: event => { event.preventDefault(); ask(); } },
      h('label', { for: 'filter' }, 'Filter'), input,
      h('span', { class: 'chips' }, suggestion('All', () => ''), suggestion('Running', and("status = 'running'")), suggestion('Failed', and("status in ('failed', 'interrupted')")), suggestion('Best first', and('metrics.eval_loss is not null order by metrics.eval_loss'))),
      h('details', { class: 'columns-chosen', open: wanted.value !== '' }, h('summary', {}, 'Columns'), h('label', { for: 'columns', class: 'unseen' }, 'Columns to show, by their names in filters'), wanted)),
    problem, h('div', { class: 'scroll' }, table), nothing, h('div', { class: 'foot' }, count, more), chosen);

  function later() {
    clearTimeout(timer);
    timer = setTimeout(ask, 350);
  }

  async function ask() {
    clearTimeout(timer);
    const mine = ++asked, filter = input.value.trim(), columns = wanted.value.trim();
    app.from = filter ? `#/?q=${encodeURIComponent(filter)}` : '#/';
    history.replaceState(null, '', app.from);
    let found;
    try {
      found = await get('runs', { filter, limit: Math.min(limit, atOnce), columns, patience });
      while (found.next && found.runs.length < limit) {
        const { runs, values, next } = await get('runs', { filter, limit: Math.min(limit - found.runs.length, atOnce), columns, patience, page: found.next });
        found = { ...found, runs: [...found.runs, ...runs], values: [...found.values, ...values], next };
      }
    } catch (error) {
      found = { problem: { message: error.message, text: '', position: 0 } };
    }
    if (mine !== asked)
      return;
    problem.hidden = !found.problem;
    input.setAttribute('aria-invalid', String(found.problem !== undefined));
    table.classList.toggle('stale', found.problem !== undefined);
    if (found.problem) {
      put(problem, h('p', {}, found.problem.message), pointed(found.problem));
      nothing.hidden = true;
      count.textContent = rows.size > 0 ? 'These are the runs of the last filter that could be read.' : '';
      return;
    }
    // Columns of numbers stand to the right, whether they were recorded as numbers or as texts.
    const own = columns === '' ? null : found.columns.map((name, i) => ({ name, kind: i === 0 ? 'is-run' : found.values.every(row => row[i] === null || row[i] !== '' && !Number.isNaN(Number(row[i])) || row[i] === 'NaN') ? 'number' : 'text' }));
    header(own, filter);
    const order = found.runs.map((run, i) => row(run, own, found.values[i]));
    if (order.some((element, i) => body.children[i] !== element) || body.children.length !== order.length)
      body.replaceChildren(...order);
    const here = new Set(found.runs.map(run => run.runId));
    [...rows.keys()].filter(id => !here.has(id)).forEach(id => rows.delete(id));
    more.hidden = !found.next;
    table.hidden = order.length === 0;
    nothing.hidden = order.length > 0;
    const running = found.runs.filter(run => run.status === 'running').length;
    count.textContent = order.length === 0 ? '' : `${found.next ? 'First ' : ''}${order.length} ${order.length === 1 ? 'run' : 'runs'}${running > 0 ? `, ${running} running` : ''}`;
    if (found.unknown.length > 0 && order.length > 0)
      count.textContent += `. ${found.unknown.map(({ name, near }) => `No run has ${name}${near.length > 0 ? ` (did you mean ${near[0]}?)` : ''}`).join('. ')}`;
    if (found.waiting > 0)
      count.textContent += `${count.textContent && '. '}${found.waiting.toLocaleString('en')} more runs are still being taken in`;
    if (order.length === 0)
      put(nothing, ...none(filter, found.unknown));
    choose();
  }

  /** The place of a fault in a filter, marked below it. Of a long one what stands around the place. */
  function pointed({ text, position }) {
    if (!text)
      return null;
    const from = Math.max(0, position - window), to = Math.min(text.length, position + window), before = from > 0 ? '…' : '';
    const line = `${before}${text.slice(from, to).replace(/\s/g, ' ')}${to < text.length ? '…' : ''}`;
    return h('pre', { 'aria-hidden': 'true' }, `${line}\n${' '.repeat(before.length + position - from)}^`);
  }

  /** Why nothing was found: names that no run has, with those that are near, or else that no run is so. */
  function none(filter, unknown) {
    if (filter === '')
      return [h('h2', {}, 'No runs yet'), h('p', {}, 'Train one, and it appears here with its first step:'), h('pre', {}, 'dotnet memopt run')];
    const instead = (name, near) => suggestion(near, typed => typed.split(name).join(near));
    const missing = unknown.map(({ name, near }) => h('p', {}, `No run has ${name}. `, near.length > 0 ? ['Did you mean ', near.map(one => [instead(name, one), ' ']), '?'] : null));
    return [h('h2', {}, unknown.length > 0 ? 'There is no such name' : 'No run matches'),
      missing.length > 0 ? missing : h('p', {}, 'A comparison with what a run does not have is false.'), h('p', {}, suggestion('Show all', () => ''))];
  }

  function header(columns, filter) {
    const { order } = parts(filter), state = `${JSON.stringify(columns)}|${order}`;
    if (state === shown)
      return;
    shown = state;
    const cell = (title, name, kind) => {
      const now = order.toLowerCase() === name.toLowerCase() || order.toLowerCase() === `${name} asc`.toLowerCase() ? 'ascending' : order.toLowerCase() === `${name} desc`.toLowerCase() ? 'descending' : 'none';
      return h('th', { scope: 'col', class: kind, 'aria-sort': now }, h('button', { type: 'button', title: `Order by ${name}`, onclick: () => sort(name, now) }, title, h('span', { class: 'arrow', 'aria-hidden': 'true' }, { ascending: ' ↑', descending: ' ↓', none: '' }[now])));
    };
    heads.replaceChildren(h('th', { scope: 'col', class: 'is-select' }, h('span', { class: 'unseen' }, 'Selected')),
      ...(columns ? columns.map(({ name, kind }) => cell(name.replace(/^(metrics|params|tags)\./, ''), name, kind)) : usual.map(([title, name, kind]) => cell(title, name, kind))));
  }

  function sort(name, now) {
    const { condition } = parts(input.value);
    input.value = whole({ condition, order: now === 'none' ? name : now === 'ascending' ? `${name} desc` : '' });
    ask();
  }

  /** A row keeps its elements while what they say changes, so that a focus stays where it is. */
  function row(run, own, values) {
    const kind = JSON.stringify(own);
    let known = rows.get(run.runId);
    if (known?.kind !== kind) {
      const box = h('input', { type: 'checkbox', 'aria-label': `Select ${run.runId}`, checked: app.selected.has(run.runId), onchange: () => { box.checked ? app.selected.add(run.runId) : app.selected.delete(run.runId); choose(); } });
      const link = h('a', { href: `#/run/${encodeURIComponent(run.runId)}`, class: 'open' });
      const cells = (own ? own.map(({ name, kind }, i) => [name, kind, i === 0 ? link : null]) : usual.map(([title, , kind]) => [title, kind, kind === 'is-run' ? link : null]))
        .map(([title, kind, child]) => h('td', { class: kind, 'data-title': title }, child));
      const element = h('tr', { onclick: event => event.target.closest('a, input, button') === null && getSelection().isCollapsed && link.click() }, h('td', { class: 'is-select' }, box), cells);
      known = { kind, element, box, link, cells };
      rows.set(run.runId, known);
    }
    const name = run.tags['mlflow.runName'];
    put(known.link, own ? cellText(values[0]) : name ? [h('span', { class: 'name', title: name }, name), h('small', {}, run.runId)] : run.runId);
    known.cells.forEach((cell, i) => {
      if (!cell.contains(known.link))
        put(cell, own ? cellText(values[i]) : usual[i][3](run));
    });
    known.box.checked = app.selected.has(run.runId);
    known.element.classList.toggle('selected', known.box.checked);
    return known.element;
  }

  const cellText = value => typeof value === 'number' || ['NaN', 'Infinity', '-Infinity'].includes(value) ? format.number(value) : value === null ? '–' : /^\d{4}-\d\d-\d\dT/.test(value) ? format.moment(value) : value;

  function choose() {
    const ids = [...app.selected];
    rows.forEach(({ element, box }) => element.classList.toggle('selected', box.checked));
    chosen.hidden = ids.length === 0;
    put(chosen, h('span', {}, `${ids.length} selected`), ids.length > 1 ? h('a', { class: 'button', href: compared(ids) }, 'Compare') : h('span', { class: 'muted' }, 'select another to compare'), h('button', { type: 'button', onclick: () => { app.selected.clear(); rows.forEach(({ box }) => box.checked = false); choose(); } }, 'Clear'));
    app.keep();
  }

  const compared = ids => `#/compare/${ids.map(encodeURIComponent).join(',')}`;

  function move(by) {
    const links = [...body.querySelectorAll('a.open')], at = links.findIndex(link => link.closest('tr').contains(document.activeElement));
    const next = links[at < 0 ? by > 0 ? 0 : links.length - 1 : Math.min(links.length - 1, Math.max(0, at + by))];
    next?.focus();
    next?.closest('tr').scrollIntoView({ block: 'nearest' });
  }

  app.show(main, 'Runs');
  const end = repeat(2000, ask);
  return {
    close: () => {
      end();
      clearTimeout(timer);
      asked++;
    },
    key: (key, event) => {
      if (key === '/') {
        event.preventDefault();
        input.focus();
        input.select();
      } else if (key === 'j' || key === 'k')
        move(key === 'j' ? 1 : -1);
      else if (key === 'x') {
        const box = document.activeElement?.closest('tr')?.querySelector('input');
        box?.click();
      } else if (key === 'c' && app.selected.size > 1)
        location.hash = compared([...app.selected]);
    },
  };
}
