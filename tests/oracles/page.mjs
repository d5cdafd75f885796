// The page of `ui` in a real browser: node page.mjs URL FINISHED,FINISHED RUNNING. Prints "stop it" when the training may end, and "ok" when all held.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const [, , base, finished, running] = process.argv;
const [one, other] = finished.split(',');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
assert(executablePath, 'no chromium: apt-get install chromium');

const patience = 600_000;                                 // of every wait: a slow machine takes its time, and where all is well nothing is waited for
const browser = await chromium.launch({ executablePath, timeout: patience, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: 'light' });
context.setDefaultTimeout(patience);
const page = await context.newPage();
const complaints = [];
page.on('console', message => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
page.on('pageerror', error => complaints.push(error.stack));
page.on('dialog', dialog => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });

process.on('uncaughtException', async error => {
  console.error(error, `\nThe page then, ${page.url()}:\n`, await page.locator('body').innerText({ timeout: 10_000 }).catch(() => ''));
  process.exit(1);
});

/** Labels, contrast and the rest that axe knows of. */
async function accessible(where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(rule => `${rule.id}: ${rule.nodes.map(node => `${node.html.slice(0, 200)} ${node.any.map(check => check.message)}`).join(' | ')}`), [], where);
}
const runs = () => page.locator('.runs tbody tr');
const filter = page.getByRole('searchbox', { name: 'Filter' });
const curve = chart => page.locator('.chart', { has: page.getByRole('heading', { name: chart, exact: true }) }).locator('path.series').first().getAttribute('d');
const until = async (what, holds) => {
  for (const end = Date.now() + patience; Date.now() < end; await page.waitForTimeout(100))
    if (await holds())
      return;
  assert.fail(`never: ${what}`);
};
const listed = (...ids) => until(`the runs ${ids}, in this order`, async () => (await page.locator('.runs tbody a.open').allInnerTexts()).join() === ids.join());
const fits = where => until(`${where} no wider than its window`, () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));

// The table: names that look like markup are text; a filter, and one that cannot be read.
await page.goto(base);
await runs().first().waitFor();
await until('five runs', async () => await runs().count() === 5);
await page.getByText('<img src=x onerror=alert(1)>').waitFor();
await page.getByText('<script>alert(2)</script>').waitFor();
await accessible('runs, light');
await page.keyboard.press('/');
await page.keyboard.type("status = 'finished' order by start_time");
await page.keyboard.press('Enter');
await listed(one, other);                                 // not only two: a filter that is typed slowly finds them before its order is there
await filter.fill('metrics.loss << 1');
const alert = page.getByRole('alert');
await alert.waitFor();
assert.match(await alert.innerText(), /Character 15 of[^]*\n {14}\^$/);
await accessible('a filter that cannot be read');
await filter.fill("status = 'finished' order by start_time");
await alert.waitFor({ state: 'hidden' });
await page.getByRole('button', { name: 'Loss', exact: true }).click();
await page.locator('th[aria-sort=ascending]', { hasText: 'Loss' }).waitFor();
assert.equal(await filter.inputValue(), "status = 'finished' order by metrics.loss");

// What is added by a click does not take the place of what was typed; an "or" stays together. A long filter shows the place of its fault.
const typed = async (text, chip, then) => {
  await filter.fill(text);
  await page.getByRole('button', { name: chip, exact: true }).click();
  assert.equal(await filter.inputValue(), then);
};
await typed("status = 'finished' or run_id = 'odd' order by start_time", 'Running', "(status = 'finished' or run_id = 'odd') and status = 'running' order by start_time");
await typed("run_id != 'a or b'", 'Best first', "run_id != 'a or b' and metrics.eval_loss is not null order by metrics.eval_loss");
await typed("status = 'running' order by run_id", 'Running', "status = 'running' order by run_id");
await typed("status = 'running'", 'All', '');
const long = `run_id in (${Array.from({ length: 60 }, (_, i) => `'run-${i}'`).join(', ')}) and metrics.loss << 1`;
await filter.fill(long);
await alert.waitFor();
const [cut, caret] = (await alert.locator('pre').innerText()).split('\n');
assert.ok(cut.length < 130, cut);
assert.equal(cut.slice(caret.indexOf('^')), '< 1', 'the mark stands below the place');
await page.getByText('the last filter that could be read').waitFor();

// A misspelt name is told, with those that are near.
await filter.fill('metrics.los < 100');
await page.getByText('No run has metrics.los.').waitFor();
await page.getByRole('button', { name: 'metrics.loss', exact: true }).click();
assert.equal(await filter.inputValue(), 'metrics.loss < 100');
await page.getByText('No run has metrics.los.').waitFor({ state: 'hidden' });

// Any number of curves is told apart, by colour and by letter.
const looks30 = await page.evaluate(async () => {
  const [{ sample }, { letter }] = await Promise.all([import('/chart.js'), import('/compare.js')]);
  return Array.from({ length: 30 }, (_, i) => {
    const one = document.body.appendChild(sample(i)), colour = getComputedStyle(one.firstChild).stroke;
    one.remove();
    return { colour, letter: letter(i) };
  });
});
assert.equal(new Set(looks30.map(look => look.colour)).size, 30);
assert.equal(new Set(looks30.map(look => look.letter)).size, 30);
assert.deepEqual([looks30[25].letter, looks30[26].letter], ['z', 'aa']);

// Back while a comparison is still waited for: what comes then is not shown.
let answer;
const held = new Promise(resolve => answer = resolve);
await page.route('**/api/compare*', async route => { await held; await route.continue().catch(() => {}); });
await page.evaluate(hash => location.hash = hash, `#/compare/${one},${other}`);
await page.getByRole('heading', { name: '2 runs' }).waitFor();
await page.goBack();
await filter.waitFor();
const came = page.waitForResponse(/api\/compare/);
answer();
await came;
await page.unroute('**/api/compare*');
await page.evaluate(() => new Promise(resolve => setTimeout(resolve)));
assert.equal(await filter.count(), 1);
assert.equal(await page.getByRole('heading', { name: '2 runs' }).count(), 0);
assert.equal(await page.title(), 'Runs – memopt');
await filter.fill("status = 'finished' order by metrics.loss");
await until('two runs', async () => await runs().count() === 2);

// By keys alone: two selected, compared, back, one opened.
await filter.press('Escape');
assert.equal(await filter.inputValue(), "status = 'finished' order by metrics.loss", 'left, not emptied');
const quiet = complaints.length;
await page.route('**/api/compare*', route => route.fulfill({ status: 500, body: 'not now' }));
for (const key of ['j', 'x', 'j', 'x', 'c'])
  await page.keyboard.press(key);
await page.getByText('not now').waitFor();
await page.unroute('**/api/compare*');
await page.getByRole('heading', { name: '2 runs' }).waitFor();
await page.getByRole('row', { name: 'train.learningRate' }).waitFor();
complaints.splice(quiet);                                 // the browser's own, of what did not work at first
await until('two curves', async () => await page.locator('.chart').first().locator('path.series:not(.faint)').count() === 2);
const looks = await page.locator('.chart').first().locator('path.series').evaluateAll(lines => lines.map(line => getComputedStyle(line).strokeDasharray));
assert.notEqual(looks[0], looks[1], 'two curves are told apart by more than their colour');
assert.equal(await page.getByRole('row', { name: 'adapter.rank' }).count(), 0, 'what is alike is not listed');
await accessible('comparison, light');
await page.keyboard.press('Escape');
await until('back at the filter', async () => await runs().count() === 2);
await page.keyboard.press('?');
await page.getByRole('dialog').waitFor();
await page.keyboard.press('Escape');
await page.getByRole('dialog').waitFor({ state: 'hidden' });
await page.keyboard.press('j');
await page.keyboard.press('Enter');

// A run: curves, scale, smoothing, the ledger measured, log, artifacts.
await page.waitForURL(/#\/run\//);
const opened = page.url().split('/').at(-1);
assert.ok([one, other].includes(opened));
await until('a curve', async () => ((await curve('loss').catch(() => '')) ?? '').length > 100);
const plain = await curve('loss');
await page.keyboard.press('l');
assert.notEqual(await curve('loss'), plain);
assert.ok(await page.getByLabel('Log scale').isChecked());
await page.keyboard.press('l');
await page.getByLabel('Smoothing').fill('0.9');
assert.equal(await page.locator('.chart').first().locator('path.series.faint').count(), 1);
await page.getByLabel('Smoothing').fill('0');
await page.getByLabel('time').check();
assert.match(await page.locator('.chart').first().locator('.tick').last().innerHTML(), / s$| min$/);
await page.getByLabel('step', { exact: true }).check();
await page.mouse.move(0, 0);                               // a pointer over a chart reads it too
await page.locator('.plot').first().focus();
await page.keyboard.press('ArrowLeft');
await page.keyboard.press('ArrowLeft');
assert.match(await page.locator('.legend').first().innerText(), /step 11/);
const weights = page.getByRole('row', { name: 'weights', exact: false }).first();
assert.match(await weights.innerText(), /MiB[^]*MiB[^]*%/);
assert.match(await page.locator('.log').innerText(), /step 12 \/ 12 {2}loss/);
await page.locator('.artifact summary').click();
const link = page.getByRole('link', { name: 'adapter_config.json' });
const file = await page.evaluate(async address => (await fetch(address)).json(), await link.getAttribute('href'));
assert.equal(file.peft_type, 'LORA');
await accessible('run, light');
await page.getByRole('button', { name: /^Theme/ }).click();
const light = await page.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor);
await page.keyboard.press('t');
assert.notEqual(await page.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor), light);
await accessible('run, dark');
await page.goto(`${base}#/run/odd`);
await page.getByRole('rowheader', { name: /^89 m+$/ }).waitFor();
await until('a curve from end to end of what numbers there are', async () => /^M[\d.]+ [\d.]+L[\d.]+ [\d.]+$/.test(await curve('grad_norm').catch(() => '') ?? ''));
await page.goto(`${base}#/compare/${one},${other}`);
await page.getByRole('row', { name: 'train.learningRate' }).waitFor();
await accessible('comparison, dark');

// A phone.
await page.setViewportSize({ width: 390, height: 844 });
await until('charts that fit', () => page.evaluate(() => [...document.querySelectorAll('.plot')].every(plot => plot.getBoundingClientRect().right <= innerWidth)));
await fits('the comparison');
for (const long of ['run/failed', 'run/odd', 'compare/failed,odd']) {
  await page.goto(`${base}#/${long}`);
  await page.getByText(/x{200}|<img src=x/).first().waitFor();
  await until('charts', async () => long === 'run/failed' || await page.locator('.chart').count() > 0);
  await fits(`${long}, with its long names,`);
}
await page.goto(`${base}#/run/${one}`);
await page.locator('.log').waitFor();
await fits('the run');
await accessible('run, on a phone');
await page.goto(base);
await until('five runs', async () => await runs().count() === 5);
await fits('the table');
await accessible('runs, dark, on a phone');
await page.setViewportSize({ width: 1280, height: 860 });

// A training, while it trains.
await page.locator('.runs tbody tr', { has: page.locator('.status.running') }).getByRole('link').click();
await page.waitForURL(new RegExp(running));
const steps = async () => Number((await page.locator('.figures dd').first().innerText()).match(/^[\d,]+/)[0].replaceAll(',', ''));
await page.locator('.figures dd').first().waitFor();
const [before, line] = [await steps(), await curve('loss')];
await until('three steps more', async () => await steps() >= before + 3);
await until('the curve grows', async () => (await curve('loss')).split('L').length > line.split('L').length);
await page.getByRole('heading', { level: 1 }).evaluate(element => element.dataset.same = 'yes');
console.log('stop it');
await page.locator('.status.stopped').waitFor();
assert.match(await page.locator('.reason').innerText(), /stopped on request/);
await page.keyboard.press('Escape');
await page.locator('.runs .status.stopped').first().waitFor();
// More runs than the server gives at once come in pieces.
await page.route('**/api/runs?*', route => route.continue({ url: route.request().url().replace(/limit=\d+/, 'limit=2') }));
await page.goto(base);
await until('five runs', async () => await runs().count() === 5);
assert.deepEqual(complaints, [], 'the console is silent');

// A run that is removed while it is looked at.
await page.goto(`${base}#/run/failed`);
await page.locator('.figures dd').first().waitFor();
await page.route('**/api/runs/failed', route => route.fulfill({ status: 404, json: { error: { message: 'There is no run failed.' } } }));
await page.getByRole('heading', { name: 'This run was removed' }).waitFor();

// Another site's page: it can read nothing, and what it posts is refused.
const site = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>elsewhere</title>')).listen(0, '127.0.0.1');
await new Promise(resolve => site.once('listening', resolve));
const elsewhere = await context.newPage();
await elsewhere.goto(`http://127.0.0.1:${site.address().port}/`);
assert.equal(await elsewhere.evaluate(address => fetch(address).then(() => 'read', () => 'refused'), `${base}api/runs`), 'refused');
const answered = elsewhere.waitForResponse(response => response.url().startsWith(base));
await elsewhere.evaluate(address => {
  const form = document.createElement('form');
  Object.assign(form, { method: 'post', action: address });
  document.body.append(form);
  setTimeout(() => form.submit());                         // not before this call has its answer
}, `${base}api/runs`);
assert.equal((await answered).status(), 403);
site.close();
await browser.close();
console.log('ok');
