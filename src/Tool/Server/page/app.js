// Where one is (#/, #/run/ID, #/compare/ID,ID), and the keys.

import { h } from './dom.js';
import * as compare from './compare.js';
import * as run from './run.js';
import * as runs from './runs.js';

const main = document.getElementById('main'), trail = document.getElementById('trail'), keys = document.getElementById('keys'), theme = document.getElementById('theme');
const themes = ['system', 'light', 'dark'];

const app = {
  /** Ids chosen for comparison, in the order chosen. */
  selected: new Set(JSON.parse(sessionStorage.getItem('memopt.selected') ?? '[]')),
  keep: () => sessionStorage.setItem('memopt.selected', JSON.stringify([...app.selected])),
  /** The table of runs as it was last looked at. */
  from: '#/',
  /** Says where one is: a view that is no longer shown may still wait for an answer, and says nothing. */
  show: (place, title, ...parts) => {
    if (!place.isConnected)
      return;
    document.title = `${title} – memopt`;
    trail.replaceChildren(...parts.map(part => h('span', {}, part)));
  },
};

let view = null;

function go() {
  const [path, query] = location.hash.slice(1).split('?'), [, kind, rest] = path.split('/');
  const decoded = rest?.split(',').filter(Boolean).map(decodeURIComponent) ?? [];
  view?.close();
  // Each view has a place of its own. What comes in for one after it was left is drawn where nobody sees it.
  const place = h('div', { class: 'view' });
  main.replaceChildren(place);
  if (kind === 'run' && decoded.length > 0)
    view = run.open(place, { id: decoded[0] }, app);
  else if (kind === 'compare' && decoded.length > 0)
    view = compare.open(place, { ids: decoded }, app);
  else
    view = runs.open(place, { q: new URLSearchParams(query).get('q') }, app);
  app.home = kind !== 'run' && kind !== 'compare';
  scrollTo(0, 0);
}

function dress(choice) {
  if (choice === 'system')
    delete document.documentElement.dataset.theme;
  else
    document.documentElement.dataset.theme = choice;
  localStorage.setItem('memopt.theme', choice);
  theme.textContent = { system: 'Theme: system', light: 'Theme: light', dark: 'Theme: dark' }[choice];
}

const turn = () => dress(themes[(themes.indexOf(localStorage.getItem('memopt.theme') ?? 'system') + 1) % themes.length]);

theme.addEventListener('click', turn);
document.getElementById('help').addEventListener('click', () => keys.showModal());
addEventListener('hashchange', go);
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open)
    return;
  const field = event.target.matches('input:not([type=checkbox], [type=radio], [type=range]), textarea');
  if (event.key === 'Escape') {
    if (field) {
      event.preventDefault();                                  // a browser would empty the filter
      event.target.blur();
    } else if (!app.home)
      location.hash = app.from;
  } else if (field)
    return;
  else if (event.key === '?')
    keys.showModal();
  else if (event.key === 't')
    turn();
  else if (event.key === '/' && !app.home) {
    event.preventDefault();
    location.hash = app.from;
  } else
    view?.key(event.key, event);
});

dress(localStorage.getItem('memopt.theme') ?? 'system');
go();
