// puppeteer-cluster: one Chromium, a context and a page for every URL.
import puppeteer from 'puppeteer';
import { Cluster } from 'puppeteer-cluster';
import { finish, parameters, visit } from './lib.mjs';

const { urls, out, concurrency, launch } = parameters();
const begun = performance.now();
const results = [];

const cluster = await Cluster.launch({
  concurrency: Cluster.CONCURRENCY_CONTEXT,
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
