// The points of a run's metrics, kept up with while it trains.

import { get } from './api.js';

const most = 1200;
const longest = 4000;                                        // characters of names; with one more name the address stays under the 8 KiB that servers take

export class Curves {
  constructor(id) {
    this.id = id;
    this.known = new Map();
  }

  /** Brings what is new of some metrics, by their summaries; says whether anything was. */
  async follow(summaries, names) {
    const wanted = [], fresh = new Set();
    for (const name of names) {
      const summary = summaries[name], old = this.known.get(name);
      if (!summary || old?.count === summary.count && old.last === summary.lastStep)
        continue;
      // A resumed run makes steps again; and what was appended often enough is worth thinning anew.
      const again = !old || summary.lastStep < old.last || summary.count < old.count || old.steps.length > 2 * most;
      if (again)
        fresh.add(name);
      wanted.push([name, again ? '' : old.last]);
    }
    if (wanted.length === 0)
      return false;
    const news = await this.ask(wanted);
    for (const [name] of wanted)
      this.take(name, news[name], fresh.has(name));
    // Points that came in at steps known already, or were made again unseen: the sums tell.
    const wrong = wanted.filter(([name]) => this.known.get(name).count < summaries[name].count).map(([name]) => [name, '']);
    if (wrong.length > 0) {
      const whole = await this.ask(wrong);
      for (const [name] of wrong)
        this.take(name, whole[name], true);
    }
    return true;
  }

  /** Of many metrics in several requests: no server takes an address of any length. */
  async ask(wanted) {
    const news = {};
    for (let from = 0, to; from < wanted.length; from = to) {
      let length = 0;
      for (to = from; to < wanted.length && (to === from || length < longest); to++)
        length += encodeURIComponent(wanted[to][0]).length + 40;
      Object.assign(news, await get(`runs/${encodeURIComponent(this.id)}/points`, [...wanted.slice(from, to).flatMap(([name, after]) => [['metric', name], ['after', after]]), ['most', most]]));
    }
    return news;
  }

  take(name, news, whole) {
    const values = news.values.map(Number);                  // NaN and Infinity come as texts
    const old = whole ? null : this.known.get(name);
    const curve = old ? { steps: [...old.steps, ...news.steps], values: [...old.values, ...values], times: [...old.times, ...news.times], count: old.count + news.count }
      : { steps: news.steps, values, times: news.times, count: news.count };
    this.known.set(name, { ...curve, last: curve.steps.at(-1) ?? -Infinity, per: Math.max(1, curve.count / Math.max(1, curve.steps.length)) });
  }

  of(name) {
    return this.known.get(name);
  }
}
