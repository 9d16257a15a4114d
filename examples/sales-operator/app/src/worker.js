'use strict';

// The queue worker: scores waiting leads. Started with `npm run worker`.

const { setTimeout: sleep } = require('node:timers/promises');
const { read, write } = require('sales-operator-db');
const settings = require('./settings');

const ending = new AbortController();
process.once('SIGINT', () => ending.abort());

async function main() {
  console.log(`worker ${settings.version} waits for leads`);
  while (!ending.signal.aborted) {
    const database = read();
    const waiting = (database.leads ?? []).filter((lead) => !lead.scored_by);
    for (const lead of waiting) lead.scored_by = settings.version;
    if (waiting.length) write(database);
    await sleep(500, null, { signal: ending.signal }).catch(() => {});
  }
}

main();
