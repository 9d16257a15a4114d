'use strict';

// How PM2 is to run the three processes. The values of the variables are not in the code; app/.env.example names them.

const path = require('node:path');

const python = path.join(__dirname, '..', 'ai-service');

module.exports = {
  apps: [
    {
      name: 'sales-operator',
      script: 'dist/server.js',
      cwd: __dirname,
      exec_mode: 'fork',
      instances: 1,
      max_memory_restart: '1G',
      out_file: '../logs/app.log',
      error_file: '../logs/app.log',
      merge_logs: true, // otherwise PM2 adds its number of the process to the name
      env: { NODE_ENV: 'production' },
    },
    {
      name: 'sales-operator-worker',
      script: 'npm',
      args: 'run worker',
      cwd: __dirname,
      max_memory_restart: '512M',
      out_file: '../logs/worker.log',
      error_file: '../logs/worker.log',
      merge_logs: true,
      env: { NODE_ENV: 'production' },
    },
    {
      name: 'sales-operator-ai',
      script: 'main.py',
      interpreter: path.join(python, '.venv', 'bin', 'python'),
      cwd: python,
      out_file: '../logs/ai-service.log',
      error_file: '../logs/ai-service.log',
      merge_logs: true,
    },
  ],
};
