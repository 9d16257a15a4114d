'use strict';

// The API of PrimeCloudPro: a worker of a PM2 cluster.

const cluster = require('node:cluster');
const http = require('node:http');
const { known, missing } = require('prime-cloud-pro-database');
const { version } = require('../package.json');

const environment = process.env.APP_ENVIRONMENT || 'development';

function health() {
  const waiting = missing();
  const ok = waiting.length === 0 && Boolean(process.env.SESSION_SECRET);
  const database = { migrations: known().length, missing: waiting };
  return [ok ? 200 : 503, { status: ok ? 'ok' : 'failing', version, environment, database }];
}

const pages = {
  '/health': health,
  '/': () => [200, { version, environment, instance: Number(process.env.NODE_APP_INSTANCE || 0) }],
};

const server = http.createServer((request, response) => {
  const [status, body] = pages[request.url]?.() ?? [404, { error: 'no such page' }];
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
});

server.listen(Number(process.env.PORT || 3000), '127.0.0.1', () => console.log(`version ${version} listens`));

process.once('SIGINT', () => {
  server.close(leave);
  server.closeIdleConnections();
});

/** Gives back a connection that PM2 may be handing over at this moment, then ends. */
function leave() {
  if (!cluster.isWorker) process.exit(0);
  process.once('disconnect', () => process.exit(0));
  cluster.worker.disconnect();
}
