'use strict';

// The main app. /health: it runs; /ready: all that it depends on answers; /metrics: for Prometheus.

const http = require('node:http');
const { missing } = require('sales-operator-db');
const settings = require('./settings');

let requests = 0;

function database() {
  const waiting = missing();
  return waiting.length ? `not migrated: ${waiting.join(', ')}` : 'ok';
}

async function service() {
  try {
    const response = await fetch(`${settings.service.url}/score`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${settings.service.token}` },
      body: JSON.stringify({ company: 'Example', employees: 100 }),
      signal: AbortSignal.timeout(2000),
    });
    return response.ok ? 'ok' : `answered ${response.status}`;
  } catch {
    return 'unreachable';
  }
}

async function ready() {
  const checks = { database: database(), ai_service: await service() };
  const ok = Object.values(checks).every((state) => state === 'ok');
  return [ok ? 200 : 503, { status: ok ? 'ready' : 'waiting', version: settings.version, checks }];
}

const pages = {
  '/health': () => [200, { status: 'ok', version: settings.version, uptime: Math.round(process.uptime()) }],
  '/ready': ready,
};

const server = http.createServer(async (request, response) => {
  requests += 1;
  if (request.url === '/metrics') {
    response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4' });
    response.end(`# TYPE sales_operator_requests_total counter\nsales_operator_requests_total ${requests}\n`);
    return;
  }
  const [status, body] = (await pages[request.url]?.()) ?? [404, { error: 'no such page' }];
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
});

server.listen(settings.port, '127.0.0.1', () => console.log(`version ${settings.version} listens`));

process.once('SIGINT', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
