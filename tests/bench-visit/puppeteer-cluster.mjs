// puppeteer-cluster: one Chromium, and a context and a page for every URL (`--model context`), or a page for every
// URL in one context (`--model page`).
import puppeteer from 'puppeteer';
import { Cluster } from 'puppeteer-cluster';
import { finish, parameters, visit } from './lib.mjs';

const { urls, out, concurrency, launch, model } = parameters({ model: { type: 'string', default: 'context' } });
const MODELS = { context: Cluster.CONCURRENCY_CONTEXT, page: Cluster.CONCURRENCY_PAGE };
const begun = performance.now();
const results = [];

const cluster = await Cluster.launch({
  concurrency: MODELS[model],
  maxConcurrency: concurrency,
  puppeteer,
  puppeteerOptions: launch,
});
cluster.on('taskerror', (error, url) => results.push({ url, error: error.message }));
await cluster.task(async ({ page, data: url }) => { results.push(await visit(page, url)); });
for (const url of urls) cluster.queue(url);
await cluster.idle();
await cluster.close();

finish(out, results, begun);
