// One run: what it does or did, its curves, and everything recorded of it.

import { get, repeat } from './api.js';
import { Chart, Lens, controls } from './chart.js';
import { Curves } from './curves.js';
import { h, put, scrolling } from './dom.js';
import * as format from './format.js';

// Looked at first, and looked at last.
const first = ['loss', 'eval_accuracy', 'learning_rate', 'grad_norm', 'tokens_per_second', 'memory_bytes', 'eval_perplexity'];
export const last = ['tokens', 'seconds', 'eval_tokens'];
const several = 6;

export const status = name => h('span', { class: `status ${name}` }, h('span', { class: 'lamp', 'aria-hidden': 'true' }), name);

/** Metrics in the order that one looks at them. An evaluation's stands in the chart of the step's of the same name. */
export function groups(names) {
  const rank = name => first.includes(name) ? first.indexOf(name) : last.includes(name) ? 1000 + last.indexOf(name) : 100;
  const all = new Set(names);
  return names.filter(name => !(name.startsWith('eval_') && all.has(name.slice(5)) && !last.includes(name.slice(5)))).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map(name => ({ name, members: [name, ...(!last.includes(name) && all.has(`eval_${name}`) ? [`eval_${name}`] : [])] }));
}

export function open(main, { id }, app) {
  const lens = new Lens(), curves = new Curves(id), charts = new Map();
  const part = (name, title) => {
    const body = h('div', { class: 'panel' });
    return { body, element: h('section', { id: name, 'aria-labelledby': `${name}-title` }, h('h2', { id: `${name}-title` }, title), body) };
  };
  const parts = Object.fromEntries([['memory', 'Memory'], ['metrics', 'Metrics'], ['events', 'Events'], ['artifacts', 'Artifacts'], ['config', 'Config'], ['lineage', 'Lineage'], ['log', 'Log']].map(([name, title]) => [name, part(name, title)]));
  const head = h('div', { class: 'head' }), figures = h('dl', { class: 'figures' }), plots = h('div', { class: 'charts' }), more = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => { everything = true; draw(); } });
  const log = h('pre', { class: 'log', tabindex: 0, 'aria-label': 'Log of the run' });
  let everything = false, run = null, logged = null, children = null, turn = 0;

  main.replaceChildren(head, figures, h('section', { id: 'curves', 'aria-labelledby': 'curves-title' }, h('div', { class: 'bar' }, h('h2', { id: 'curves-title' }, 'Curves'), controls(lens)), plots, more),
    parts.memory.element,
    h('div', { class: 'columns' }, ...[['metrics', 'events', 'lineage'], ['artifacts', 'config']].map(names => h('div', {}, names.map(name => parts[name].element)))),
    parts.log.element);

  function draw() {
    const all = groups(Object.keys(run.metrics)).filter(group => group.members.some(name => run.metrics[name].count > 1));
    const shown = everything ? all : all.filter(group => !last.includes(group.name)).slice(0, several);
    for (const { name, members } of shown) {
      if (!charts.has(name)) {
        const chart = new Chart(name, lens, name.replace(/^eval_/, ''));
        charts.set(name, chart);
        plots.append(chart.element);
      }
      charts.get(name).show(members.map((member, look) => ({ name: member, label: member, look, curve: dated(curves.of(member)) })));
    }
    more.hidden = shown.length === all.length;
    more.textContent = `${all.length - shown.length} more`;
    if (all.length === 0)
      put(plots, h('p', { class: 'empty' }, Object.keys(run.metrics).length > 0 ? 'A curve begins with the second value of a metric.' : run.status === 'running' ? 'The first step has not been made yet.' : 'No step was recorded.'));
    else
      plots.querySelector('.empty')?.remove();
  }

  /** Time counts from the first point of the run, whatever the metric. */
  function dated(curve) {
    const start = Math.min(...Object.keys(run.metrics).map(name => curves.of(name)?.times[0] ?? Infinity));
    return curve && { ...curve, start };
  }

  function top() {
    const done = run.metrics.loss?.lastStep ?? Math.max(0, ...Object.values(run.metrics).map(metric => metric.lastStep));
    const name = run.tags['mlflow.runName'];
    app.show(main, `${run.status === 'running' && run.totalSteps > 0 ? `${Math.floor(100 * done / run.totalSteps)} % · ` : ''}${name ?? id}`, run.runId);
    put(head, h('h1', {}, name ? [name, ' ', h('small', {}, run.runId)] : run.runId), status(run.status),
      h('span', { class: 'facts' }, h('a', { href: `#/?q=${encodeURIComponent(`experiment = '${run.experiment.replaceAll("'", "''")}'`)}` }, run.experiment)),
      ...Object.entries(run.tags).filter(([key]) => key === 'memopt.deleted' || !/^(mlflow|memopt)\./.test(key)).map(([key, value]) => h('span', { class: 'tag' }, `${key}: ${value}`)),
      run.reason || run.status === 'interrupted' ? h('p', { class: run.status === 'failed' ? 'reason failed' : 'reason' }, run.reason ?? 'Its process is gone without an end. Start the training again and it goes on from its last checkpoint.') : null);
    const seconds = ((run.ended ? new Date(run.ended) : Date.now()) - new Date(run.started)) / 1000;
    const pace = curves.of('loss'), rate = pace && pace.steps.length > 1 ? (pace.times.at(-1) - pace.times[0]) / 1000 / Math.max(1, pace.steps.at(-1) - pace.steps[0]) : NaN;
    const figure = (title, value, hint) => h('div', {}, h('dt', {}, title), h('dd', {}, value, hint ? h('small', {}, hint) : null));
    const of = (title, name) => run.metrics[name] ? figure(title, format.metric(name, run.metrics[name].last), name === 'loss' ? `least ${format.number(run.metrics.loss.min)}` : null) : null;
    put(figures,
      figure('Step', done.toLocaleString('en'), run.totalSteps > 0 ? `of ${run.totalSteps.toLocaleString('en')}` : null),
      of('Loss', 'loss'), of('Eval loss', 'eval_loss'),
      run.metrics.eval_accuracy ? figure('Accuracy', `${(100 * run.metrics.eval_accuracy.last).toFixed(1)} %`) : null,
      of('Tokens/s', 'tokens_per_second'),
      run.metrics.memory_bytes ? figure('Peak memory', format.bytes(run.metrics.memory_bytes.max)) : null,
      figure('Started', format.clock(run.started), format.day(run.started)),
      run.status === 'running' ? figure('Left', Number.isFinite(rate) && run.totalSteps > done ? format.duration(rate * (run.totalSteps - done)) : '–', `running ${format.duration(seconds)}`) : figure('Took', run.ended ? format.duration(seconds) : '–'));
    if (run.totalSteps > 0 && run.status !== 'finished')
      figures.append(h('progress', { max: run.totalSteps, value: Math.min(done, run.totalSteps), 'aria-label': 'Steps made' }));
  }

  function memory() {
    if (run.ledger.length === 0)
      return put(parts.memory.body, h('p', { class: 'empty' }, 'No ledger was recorded.'));
    const measured = run.ledger.some(row => row.measured !== null && row.measured !== undefined), most = Math.max(...run.ledger.flatMap(row => [row.bytes, row.measured ?? 0]), 1);
    const cells = (name, place, bytes, found, why, total) => h('tr', total ? { class: 'total' } : {}, h('th', { scope: 'row' }, name), h('td', {}, place), h('td', { class: 'number' }, format.bytes(bytes)),
      measured ? h('td', { class: 'number' }, format.bytes(found)) : null,
      measured ? h('td', { class: 'number' }, found === null || found === undefined || bytes === 0 ? '–' : `${found >= bytes ? '+' : '−'}${Math.abs(100 * (found - bytes) / bytes).toFixed(1)} %`) : null,
      h('td', { class: 'bars' }, total ? null : gauge(bytes, found, most)), h('td', { class: 'why' }, why));
    const places = [...new Set(run.ledger.map(row => row.place))];
    const sum = (rows, of) => rows.reduce((total, row) => total + (of(row) ?? 0), 0);
    put(parts.memory.body, scrolling('Memory ledger', h('table', { class: 'ledger' },
      h('thead', {}, h('tr', {}, ['What', 'On'].map(title => h('th', { scope: 'col' }, title)), h('th', { scope: 'col', class: 'number' }, 'Estimated'), measured ? [h('th', { scope: 'col', class: 'number' }, 'Measured'), h('th', { scope: 'col', class: 'number' }, 'Off by')] : null,
        h('th', { scope: 'col' }, h('span', { class: 'key' }, h('i', { class: 'estimate' }), 'estimated', measured ? [h('i', { class: 'measured' }), 'measured'] : null)), h('th', { scope: 'col' }, 'From'))),
      h('tbody', {}, run.ledger.map(row => cells(row.name, row.place, row.bytes, row.measured, row.why, false)),
        places.map(place => {
          const rows = run.ledger.filter(row => row.place === place);
          return cells('total', place, sum(rows, row => row.bytes), rows.some(row => row.measured !== null && row.measured !== undefined) ? sum(rows, row => row.measured) : null, '', true);
        })))));
  }

  function rest() {
    const metrics = groups(Object.keys(run.metrics)).flatMap(group => group.members);
    put(parts.metrics.body, metrics.length === 0 ? h('p', { class: 'empty' }, 'None yet.') : scrolling('Metrics', h('table', {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Metric'), ['Last', 'Least', 'Most', 'Mean', 'Points'].map(title => h('th', { scope: 'col', class: 'number' }, title)))),
      h('tbody', {}, metrics.map(name => {
        const m = run.metrics[name];
        const value = (v, step) => h('td', { class: 'number', title: step === undefined ? null : `at step ${step}` }, format.metric(name, v));
        return h('tr', {}, h('th', { scope: 'row' }, name), value(m.last, m.lastStep), value(m.min, m.minStep), value(m.max, m.maxStep), value(m.mean), h('td', { class: 'number' }, m.count.toLocaleString('en')));
      })))));

    put(parts.events.body, run.events.length === 0 ? h('p', { class: 'empty' }, 'Nothing out of the ordinary.') : scrolling('Events', h('ol', { class: 'events' }, run.events.map(event =>
      h('li', {}, h('time', { datetime: event.time, title: format.moment(event.time) }, format.clock(event.time)), h('span', { class: 'kind' }, event.kind), h('span', {}, event.text, h('small', {}, ` after step ${event.step}`)))))));

    const settings = Object.entries(run.params).sort(([a], [b]) => a.localeCompare(b));
    put(parts.config.body, settings.length === 0 ? h('p', { class: 'empty' }, 'No settings were recorded.') : scrolling('Config', pairs(settings)));

    const facts = [
      run.parent ? ['parent', [h('a', { href: `#/run/${encodeURIComponent(run.parent.id)}` }, run.parent.id), ` (${run.parent.kind})`]] : null,
      run.gitCommit ? ['commit', [h('code', { title: run.gitCommit }, run.gitCommit.slice(0, 12)), run.gitDirty ? ' with uncommitted changes' : '']] : ['commit', 'outside a repository'],
      ...Object.entries(run.hashes).map(([role, hash]) => [role, h('code', { title: hash }, `${hash.slice(0, 16)}…`)]),
    ].filter(Boolean);
    const environment = Object.entries(run.environment).sort(([a], [b]) => a.localeCompare(b));
    const unfolded = parts.lineage.body.querySelector('details')?.open;
    put(parts.lineage.body, pairs(facts),
      children && children.length > 0 ? [h('h3', {}, `Runs that came of it (${children.length})`), scrolling('Runs that came of it', h('ul', { class: 'children' }, children.map(child => h('li', {}, h('a', { href: `#/run/${encodeURIComponent(child.runId)}` }, child.runId), ' ', status(child.status), ' ', h('span', { class: 'muted' }, child.loss === null ? '' : `loss ${format.number(child.loss)}`))))),
        h('a', { href: `#/compare/${children.slice(0, 8).map(child => encodeURIComponent(child.runId)).join(',')}` }, 'Compare them')] : null,
      environment.length > 0 ? h('details', { open: unfolded }, h('summary', {}, `Environment (${environment.length})`), scrolling('Environment', pairs(environment))) : null);

    if (parts.artifacts.body.dataset.shown !== JSON.stringify(run.artifacts)) {
      parts.artifacts.body.dataset.shown = JSON.stringify(run.artifacts);
      put(parts.artifacts.body, run.artifacts.length === 0 ? h('p', { class: 'empty' }, run.status === 'running' ? 'None yet: the adapter comes at the end.' : 'None.') : run.artifacts.map(artifact));
    }
  }

  function artifact({ name, hash, bytes, path }) {
    const files = h('div', { class: 'files' }, 'Looking…');
    let asked = false;
    return h('details', { class: 'artifact', ontoggle: async () => {
      if (asked)
        return;
      asked = true;
      try {
        const list = await get(`artifacts/${encodeURIComponent(hash)}`);
        put(files, h('ul', {}, list.map(file => h('li', {}, h('a', { href: `/api/artifacts/${encodeURIComponent(hash)}/file?path=${encodeURIComponent(file.path)}`, download: '' }, file.path), h('span', { class: 'muted' }, format.bytes(file.bytes))))));
      } catch (error) {
        asked = false;
        put(files, h('p', { class: 'problem' }, error.message, ' Perhaps it is in a storage account: ', h('code', {}, `dotnet memopt artifacts get ${hash.slice(0, 12)} --out FOLDER`)));
      }
    } }, h('summary', {}, h('b', {}, name), h('span', { class: 'muted' }, format.bytes(bytes)), h('code', { title: hash }, hash.slice(0, 12)), path ? h('span', { class: 'muted path' }, path) : null), files);
  }

  async function follow() {
    const news = await get(`runs/${encodeURIComponent(run.runId)}/log`, { after: logged });
    if (logged === null)
      put(parts.log.body, news.next === 0 ? h('p', { class: 'empty' }, 'Nothing was kept of what it printed.') : log);
    if (news.text === '')
      return;
    const below = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    if (!log.isConnected)
      put(parts.log.body, log);
    log.append(news.text);
    logged = news.next;
    if (below)
      log.scrollTop = log.scrollHeight;
  }

  const whole = [...main.children];
  const end = repeat(1000, async () => {
    try {
      run = await get(`runs/${encodeURIComponent(id)}`);
    } catch (error) {
      if (run === null || error.status === 404) {
        main.replaceChildren(h('div', { class: 'nothing' }, h('h1', {}, run === null ? 'This run cannot be shown' : 'This run was removed'), h('p', {}, error.message), h('a', { href: '#/' }, 'All runs')));
        return error.status !== 404;
      }
      throw error;
    }
    if (!whole[0].isConnected)
      main.replaceChildren(...whole);                      // it could not be had at first
    curves.id = run.runId;                                 // the address may hold the start of an id only
    await curves.follow(run.metrics, Object.keys(run.metrics));
    if (children === null || run.status === 'running' && turn++ % 10 === 0)
      children = (await get('runs', { filter: `parent = '${run.runId}' order by start_time`, limit: 200 })).runs ?? [];
    top();
    draw();
    memory();
    rest();
    await follow();
    return run.status !== 'finished';                      // any other may be gone on with
  });

  return {
    close: () => {
      end();
      charts.forEach(chart => chart.close());
    },
    key: key => key === 'l' && lens.set({ log: !lens.log }),
  };
}

const pairs = entries => h('dl', { class: 'pairs' }, entries.map(([key, value]) => h('div', {}, h('dt', {}, key), h('dd', {}, value))));

/** Estimate as a frame, measurement as what fills it. */
function gauge(estimated, measured, most) {
  const bar = h('span', { class: 'gauge', role: 'img', 'aria-label': `estimated ${format.bytes(estimated)}${measured === null || measured === undefined ? '' : `, measured ${format.bytes(measured)}`}` }, h('i', { class: 'estimate' }), h('i', { class: 'measured' }));
  bar.firstChild.style.width = `${100 * estimated / most}%`;
  bar.lastChild.style.width = `${100 * (measured ?? 0) / most}%`;
  return bar;
}
