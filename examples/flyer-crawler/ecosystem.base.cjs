'use strict';

// What the environments share. `suffix` makes the names differ in `pm2 list`.

module.exports = (suffix, environment) =>
  [
    { name: 'flyer-crawler-api', script: 'server.js', max_memory_restart: '500M' },
    { name: 'flyer-crawler-worker', script: 'worker.js', max_memory_restart: '1G' },
    { name: 'flyer-crawler-analytics-worker', script: 'analytics-worker.js', max_memory_restart: '1G' },
  ].map((app) => ({
    ...app,
    name: app.name + suffix,
    cwd: __dirname,
    exec_mode: 'fork',
    kill_timeout: 5000, // ms for the work under way, after SIGINT
    env: { NODE_ENV: 'production', APP_ENVIRONMENT: environment },
  }));
