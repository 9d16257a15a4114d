'use strict';

// The shop's HTTP API. It shows the products, takes orders and hands them to the worker through the spool directory.

const cluster = require('node:cluster');
const express = require('express');
const pino = require('pino');
const settings = require('./settings');
const { Catalogue } = require('./catalogue');
const { Spool } = require('./spool');

const log = pino({ base: { environment: settings.environment, version: settings.version } });
const spool = new Spool(settings.spool);
const catalogue = new Catalogue(settings.database, log);
const checks = { spool, catalogue };
const app = express();

app.disable('x-powered-by');
app.use(express.json({ limit: '10kb' }));

app.get('/', (request, response) => {
  response.json({
    greeting: settings.greeting,
    version: settings.version,
    environment: settings.environment,
    pid: process.pid,
    instance: Number(process.env.NODE_APP_INSTANCE || 0),
  });
});

app.get('/health', async (request, response) => {
  const states = {};
  for (const [name, part] of Object.entries(checks)) {
    try {
      await part.check();
      states[name] = 'ok';
    } catch (error) {
      log.error({ part: name, error: error.message }, 'not healthy');
      states[name] = error.code || error.message;
    }
  }
  const healthy = Object.values(states).every((state) => state === 'ok');
  const status = healthy ? 'ok' : 'failing';
  response.status(healthy ? 200 : 503).json({ status, version: settings.version, checks: states });
});

app.get('/products', async (request, response) => {
  response.json(await catalogue.products());
});

app.post('/orders', async (request, response) => {
  const { item, quantity } = request.body || {};
  if (typeof item !== 'string' || item === '' || !Number.isInteger(quantity) || quantity < 1) {
    return response.status(400).json({ error: 'an order has an item (text) and a quantity (1 or more)' });
  }
  const id = await spool.add({ item, quantity });
  return response.status(202).json({ id, state: 'new' });
});

app.get('/orders/:id', async (request, response) => {
  const found = /^[0-9a-f-]{36}$/.test(request.params.id) && (await spool.find(request.params.id));
  return found ? response.json(found) : response.status(404).json({ error: 'no such order' });
});

async function main() {
  await spool.open();
  const server = app.listen(settings.port, settings.host, (error) => {
    if (error) throw error;
    log.info({ port: settings.port }, 'the API listens');
    process.send?.('ready'); // PM2 waits for it if `wait_ready` is set
  });

  // PM2 asks a process to end with SIGINT. close() stops accepting and calls back when the last request is answered.
  process.once('SIGINT', () => {
    server.close(leave);
    server.closeIdleConnections();
  });
}

/**
 * A cluster worker must not just exit: PM2 may be handing it a connection at this moment, which would hang.
 * So disconnect() gives it back to the other workers first.
 */
function leave() {
  if (!cluster.isWorker) process.exit(0);
  process.once('disconnect', () => process.exit(0));
  cluster.worker.disconnect();
}

main().catch((error) => {
  log.fatal(error, 'the API cannot start');
  process.exit(1);
});
