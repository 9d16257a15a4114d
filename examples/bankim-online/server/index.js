'use strict';

// The server of BankimOnline: a worker of a PM2 cluster.

const cluster = require('node:cluster');
const http = require('node:http');
const settings = require('./settings');
const { state } = require('./databases');

function health() {
  const databases = Object.fromEntries(Object.entries(settings.databases).map(([name, url]) => [name, state(url)]));
  const ok = Object.values(databases).every((found) => found === 'connected');
  const secret = settings.hasOwnSecret ? 'set' : 'default';
  return [ok ? 200 : 503, { status: ok ? 'ok' : 'failing', version: settings.version, databases, jwt_secret: secret }];
}

function contentHealth() {
  const database = state(settings.databases.content);
  const ok = database === 'connected';
  return [ok ? 200 : 503, { status: ok ? 'ok' : 'failing', version: settings.version, database }];
}

const pages = {
  '/api/health': health,
  '/api/content-db/health': contentHealth,
  '/api/version': () => [200, { version: settings.version, instance: Number(process.env.NODE_APP_INSTANCE || 0) }],
};

const server = http.createServer((request, response) => {
  const [status, body] = pages[request.url]?.() ?? [404, { error: 'no such page' }];
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
});

server.listen(settings.port, '127.0.0.1', () => console.log(`version ${settings.version} listens`));

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
