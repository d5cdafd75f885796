// Takes the pictures of docs/ui.md: node docs/screenshots.mjs, after a build in Release and `npm ci` in tests/oracles. Trains a few runs in a temporary folder.
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = join(dirname(fileURLToPath(import.meta.url)), '..'), images = join(repository, 'docs/images');
const { chromium } = createRequire(join(repository, 'tests/oracles/package.json'))('playwright-core');
const tool = ['exec', join(repository, 'artifacts/bin/Tool/release/memopt.dll')];
const folder = mkdtempSync(join(tmpdir(), 'memopt'));
const start = (...words) => spawn('dotnet', [...tool, ...words], { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
const run = (...words) => JSON.parse(spawnSync('dotnet', [...tool, ...words, '--json'], { cwd: folder, encoding: 'utf8' }).stdout);

for (const file of ['train.jsonl', 'eval.jsonl'])
  copyFileSync(join(repository, 'samples/word-class', file), join(folder, file));
writeFileSync(join(folder, 'memopt.json'), JSON.stringify({
  model: { source: 'embedded:nano' }, data: { train: 'train.jsonl', eval: 'eval.jsonl#64', maxLength: 128 }, adapter: { kind: 'qlora', rank: 16, alpha: 32 },
  train: { steps: 80, batchSize: 8, learningRate: 1e-3 }, tracking: { experiment: 'word-class' },
}));
writeFileSync(join(folder, 'rates.json'), JSON.stringify({ config: 'memopt.json', parameters: { 'train.learningRate': [5e-4, 2e-3, 6e-3] } }));
const sweep = run('sweep', 'rates.json');
run('run', '--set', 'adapter.rank=4', '--set', 'tracking.experiment=small-rank', '--set', 'train.steps=40');
const stopped = start('run', '--from-start', '--set', 'tracking.experiment=stopped');
await new Promise(resolve => setTimeout(resolve, 12_000));
stopped.kill('SIGKILL');
const training = start('run', '--from-start', '--set', 'train.steps=2000');
const server = start('ui', '--port', '0');
const base = String(await new Promise(resolve => server.stdout.once('data', resolve))).trim();
await new Promise(resolve => setTimeout(resolve, 25_000));

const browser = await chromium.launch({ executablePath: ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync), args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
const take = async (name, hash, { width = 1240, height = 780, dark = false, ready, before } = {}) => {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce' });
  await page.goto(base + hash);
  await page.locator(ready).first().waitFor();
  await before?.(page);
  await page.evaluate(() => document.activeElement?.blur());
  await page.waitForTimeout(1200);
  await page.screenshot({ path: join(images, `${name}.png`) });
  await page.close();
};
const best = sweep.children.map(child => child.runId);
await take('runs', '', { height: 500, ready: '.runs tbody tr', before: async page => { await page.getByRole('checkbox').nth(3).check(); await page.getByRole('checkbox').nth(4).check(); } });
await take('run', `#/run/${best[1]}`, { height: 1180, ready: '.log', before: page => page.getByLabel('Smoothing').fill('0.8') });
await take('compare', `#/compare/${best.join(',')}`, { height: 700, dark: true, ready: '.differences', before: async page => { await page.getByLabel('Smoothing').fill('0.6'); await page.keyboard.press('l'); } });
await take('phone', '', { width: 390, height: 780, ready: '.runs tbody tr' });
await browser.close();
server.kill('SIGINT');
training.kill('SIGINT');
