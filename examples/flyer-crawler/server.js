'use strict';

// The flyer crawler's HTTP API: takes flyers, and reports its health.

const http = require('node:http');
const path = require('node:path');
const { randomUUID } = require('node:crypto');
const { Database, Flyers, migrations } = require('@flyer-crawler/shared');
const { version } = require('./package.json');

const database = new Database();
const flyers = new Flyers();
const needed = migrations(path.join(__dirname, 'migrations')).at(-1)[0];

/** Not healthy if the database is older than the code. */
function health() {
  const { schema } = database.read();
  const ok = schema >= needed;
  const body = {
    status: ok ? 'ok' : 'failing',
    version,
    environment: process.env.APP_ENVIRONMENT || 'development',
    database: { schema, needed },
  };
  return [ok ? 200 : 503, body];
}

function answer(request, body) {
  if (request.method === 'GET' && request.url === '/health') return health();
  if (request.method === 'GET' && request.url === '/flyers') {
    return [200, { new: flyers.list('new').length, read: flyers.list('read').length }];
  }
  if (request.method === 'POST' && request.url === '/flyers') {
    const id = randomUUID();
    flyers.add(id, body);
    return [202, { id }];
  }
  return [404, { error: 'no such page' }];
}

const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  let result;
  try {
    result = answer(request, Buffer.concat(parts));
  } catch (error) {
    console.error(error);
    result = [500, { error: 'see the log' }];
  }
  response.writeHead(result[0], { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(result[1]));
});

server.listen(Number(process.env.PORT || 3000), '127.0.0.1', () => console.log(`api ${version} listens`));

process.once('SIGINT', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
