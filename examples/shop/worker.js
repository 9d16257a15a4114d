'use strict';

// The shop's queue worker: takes orders from the spool, two at a time, and marks them done.

const { setTimeout: sleep } = require('node:timers/promises');
const fastq = require('fastq');
const pino = require('pino');
const settings = require('./settings');
const { Spool } = require('./spool');

const CONCURRENCY = 2;
const POLL_MS = 100;

const log = pino({ base: { environment: settings.environment, version: settings.version } });
const spool = new Spool(settings.spool);
const queue = fastq.promise(pack, CONCURRENCY);
const ending = new AbortController();

async function pack(id) {
  const order = await spool.read('active', id);
  await sleep(50); // the packing
  await spool.finish(id, { ...order, packed_by: { version: settings.version, pid: process.pid } });
  log.info({ id, item: order.item }, 'order packed');
}

async function main() {
  await spool.open();
  const left = await spool.takeBack();
  log.info({ pid: process.pid, taken_back: left.length }, 'worker started');
  while (!ending.signal.aborted) {
    const room = CONCURRENCY * 2 - queue.length();
    for (const id of room > 0 ? await spool.take(room) : []) {
      queue.push(id).catch((error) => log.error({ id, error: error.message }, 'order failed, it stays in active/'));
    }
    await sleep(POLL_MS, null, { signal: ending.signal }).catch(() => {});
  }
  await queue.drained();
  log.info('worker ended, nothing under way');
  process.exit(0); // timers of PM2's, which runs this file inside its own code, would delay the end by a second or two
}

process.once('SIGINT', () => ending.abort());

main().catch((error) => {
  log.fatal(error, 'the worker cannot go on');
  process.exit(1);
});
