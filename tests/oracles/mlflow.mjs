// Logs and queries a run with the npm package mlflow, a client that others wrote. Prints what the server answered as JSON.
//   node mlflow.mjs http://127.0.0.1:5080
import { createRequire } from 'node:module';

const answers = {};
console.log = () => {};                                  // the client prints every body it sends
const MLflow = createRequire(import.meta.url)('mlflow');
const endpoint = process.argv[2];
const client = new MLflow({ endpoint });

const { experiment_id } = await client.Experiments.create({ name: 'from-node' });
await client.Experiments.setExperimentTag({ experiment_id, key: 'team', value: 'nlp' });
answers.experiment = (await client.Experiments.get({ experiment_id })).experiment;
answers.listed = (await client.Experiments.list()).experiments.map(experiment => experiment.name);
answers.taken = await refusal(client.Experiments.create({ name: 'from-node' }));

const start_time = 1764028800000;
const created = (await client.Runs.create({ experiment_id, user_id: 'ann', start_time, tags: [{ key: 'mlflow.runName', value: 'first' }, { key: 'gone', value: 'x' }] })).run;
const run_id = created.info.run_id;
answers.created = created;
await client.Runs.logParameter({ run_id, key: 'lr', value: '0.001' });
answers.changed = await refusal(client.Runs.logParameter({ run_id, key: 'lr', value: '0.002' }));
for (let step = 0; step < 5; step++)
  await client.Runs.logMetric({ run_id, key: 'loss', value: 1 / (step + 1), timestamp: start_time + step, step });
await client.Runs.logBatch({
  run_id,
  metrics: [{ key: 'loss', value: 0.125, timestamp: start_time + 5, step: 5 }, { key: 'val/acc', value: 0.75, timestamp: start_time + 5, step: 5 }],
  params: [{ key: 'optimizer', value: 'adamw' }],
  tags: [{ key: 'stage', value: 'test' }],
});
await client.Runs.setTag({ run_id, key: 'note', value: 'a "quoted" ü' });
await client.Runs.deleteTag({ run_id, key: 'gone' });
answers.updated = (await client.Runs.update({ run_id, status: 'FINISHED', end_time: start_time + 60000 })).run_info;
answers.run = (await client.Runs.get({ run_id })).run;
answers.history = (await client.Metrics.getHistory({ run_id, metric_key: 'loss' })).metrics;

const second = (await client.Runs.create({ experiment_id, start_time: start_time + 1000 })).run.info.run_id;
await client.Runs.logMetric({ run_id: second, key: 'loss', value: 0.5, timestamp: start_time, step: 0 });
await client.Runs.update({ run_id: second, status: 'KILLED' });
answers.ids = [run_id, second];
answers.found = {};
for (const filter of ["metrics.loss < 0.2", "params.lr = '0.001' and tags.stage LIKE 'te%'", "status = 'KILLED'", "attributes.user_id = 'ann'", 'metrics.`val/acc` >= 0.75', "run_name = 'first'"])
  answers.found[filter] = (await client.Runs.search({ experiment_ids: [experiment_id], filter })).runs.map(run => run.info.run_id);
const page = await client.Runs.search({ experiment_ids: [experiment_id], max_results: 1, order_by: ['metrics.loss DESC'] });
const next = await client.Runs.search({ experiment_ids: [experiment_id], max_results: 1, order_by: ['metrics.loss DESC'], page_token: page.next_page_token });
answers.pages = [page.runs[0].info.run_id, next.runs[0].info.run_id, next.next_page_token ?? null];
answers.misspelled = await refusal(client.Runs.search({ experiment_ids: [experiment_id], filter: 'metrics.loss << 1' }));

await fetch(`${endpoint}/api/2.0/mlflow-artifacts/artifacts/${experiment_id}/${run_id}/artifacts/model/notes.txt`, { method: 'PUT', body: 'notes' });
answers.files = (await client.Artifacts.list({ run_id, path: 'model' })).files;

await client.Runs.delete({ run_id: second });
answers.active = (await client.Runs.search({ experiment_ids: [experiment_id] })).runs.map(run => run.info.run_id);
answers.deleted = (await client.Runs.search({ experiment_ids: [experiment_id], run_view_type: 'DELETED_ONLY' })).runs.map(run => run.info.run_id);
await client.Runs.restore({ run_id: second });
await client.Experiments.update({ experiment_id, new_name: 'renamed' });
await client.Experiments.delete({ experiment_id });
answers.gone = (await client.Experiments.list()).experiments.map(experiment => experiment.name);
await client.Experiments.restore({ experiment_id });
answers.back = (await client.Experiments.list()).experiments.map(experiment => experiment.name);
process.stdout.write(JSON.stringify(answers));

async function refusal(call) {
  try {
    await call;
    return null;
  } catch (error) {
    return JSON.parse(error.message.replace(/^Error: /, ''));
  }
}
