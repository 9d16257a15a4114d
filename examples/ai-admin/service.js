'use strict';

// One of the seven services: `node service.js <name>`.

const cluster = require('node:cluster');
const http = require('node:http');
const { SERVICES, env, port, version } = require('./lib/settings');
const { state } = require('./lib/database');

const name = process.argv[2];
if (!SERVICES.includes(name)) throw new Error(`no service is named ${name}; there are ${SERVICES.join(', ')}`);

async function ask(service) {
  try {
    const response = await fetch(`http://127.0.0.1:${port(service)}/health`, { signal: AbortSignal.timeout(2000) });
    return (await response.json()).status;
  } catch {
    return 'unreachable';
  }
}

/** Always 200. Only the body says what is wrong, so a gate that only looks at the status sees nothing. */
async function health() {
  const database = state(env.DATABASE_URL);
  const body = { status: database === 'connected' ? 'healthy' : 'degraded', service: name, version, database };
  if (name === 'search') body.backend = env.SEARCH_BACKEND;
  if (name === 'gateway') {
    const others = SERVICES.filter((service) => service !== name);
    body.services = Object.fromEntries(await Promise.all(others.map(async (other) => [other, await ask(other)])));
  }
  return body;
}

const server = http.createServer(async (request, response) => {
  const found = request.url === '/health';
  response.writeHead(found ? 200 : 404, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(found ? await health() : { error: 'no such page' }));
});

server.listen(port(name), '127.0.0.1', () => {
  console.log(`${name} ${version} listens, with ${env.DB_POOL_SIZE} connections to the database`);
  if (name === 'search') console.log(`search back end: ${env.SEARCH_BACKEND}`);
});

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
