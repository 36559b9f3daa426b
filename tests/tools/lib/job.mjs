// What a program of a tool is given in its environment, and how it tells what it did.

import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** The same browser by its two addresses, the test site, which of the jobs in a row this is, and a folder of its own. */
export const { CDP_WS: ws, CDP_HTTP: http, SITE: site, JOB: job, FOLDER: folder } = process.env;
export const { hostname: host, port } = new URL(http);

export const FORM = `${site}/form.html?job=${job}`;
export const FILES = `${site}/files.html?job=${job}`;
/** What is typed into the form, which tells it when it is sent. */
export const NAME = `job ${job}`;

/** Run in the page of the form: answers with the marks of earlier visitors, and leaves one. */
export const MARK = `(() => {
  const found = document.cookie + (localStorage.getItem('mark') ?? '');
  document.cookie = 'mark=${job}; Max-Age=3600';
  localStorage.setItem('mark', '${job}');
  return found;
})()`;

/** Resolves to the size of a file that is being downloaded into `directory`, once it is whole. */
export async function downloaded(directory, wanted, limit = 10_000) {
  const deadline = performance.now() + limit;
  while (performance.now() < deadline) {
    for (const name of readdirSync(directory)) {
      const { length } = readFileSync(join(directory, name));
      if (length > 0 && name === wanted) return length;
    }
    await delay(50);
  }
  throw new Error(`nothing was downloaded within ${limit} ms`);
}

/**
 * Tells what was done: the `title` that was read, what the page `sent`, the `marks` that were found, a `picture`
 * as its bytes or in Base64, the size of a `file`, and `refused`, errors that the tool gave for parts of its work.
 */
export function report({ picture, ...rest }) {
  const did = { ...rest, ...(picture === undefined ? {} : { picture: pictureSize(picture) }) };
  writeFileSync(join(folder, 'report.json'), JSON.stringify(did));
}

/** Width and height of a PNG or a JPEG; throws where it is neither. */
export function pictureSize(picture) {
  const bytes = Buffer.from(picture, 'base64');
  if (bytes.subarray(1, 4).toString() === 'PNG') return `${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`;
  for (let at = 2; bytes[0] === 0xff && at < bytes.length; at += 2 + bytes.readUInt16BE(at + 2)) {
    if (bytes[at + 1] >= 0xc0 && bytes[at + 1] <= 0xc2) return `${bytes.readUInt16BE(at + 7)}x${bytes.readUInt16BE(at + 5)}`;
  }
  throw new Error('neither a PNG nor a JPEG');
}
