'use strict';

// How PM2 is to run the shop. nodeops.pm2 reads this file too (deploy_ecosystem: ecosystem.config.cjs,
// deploy_env_name: production); inventories/local describes the same processes in the inventory instead.

module.exports = {
  apps: [
    {
      name: 'shop-api',
      script: 'server.js',
      cwd: __dirname,
      exec_mode: 'cluster',
      instances: 2,
      kill_timeout: 5000, // ms for the requests under way, after SIGINT
      max_memory_restart: '200M',
      env: { NODE_ENV: 'production', SHOP_ENVIRONMENT: 'development', PORT: 4600 },
      env_production: { SHOP_ENVIRONMENT: 'production', PORT: 4610 },
      env_test: { SHOP_ENVIRONMENT: 'test', PORT: 4620 },
    },
    {
      name: 'shop-worker',
      script: 'worker.js',
      cwd: __dirname,
      exec_mode: 'fork',
      kill_timeout: 5000,
      max_memory_restart: '200M',
      env: { NODE_ENV: 'production', SHOP_ENVIRONMENT: 'development' },
      env_production: { SHOP_ENVIRONMENT: 'production' },
      env_test: { SHOP_ENVIRONMENT: 'test' },
    },
  ],
};
