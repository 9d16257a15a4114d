'use strict';

// Development: the API, the worker, and the development server of the front end.

const base = require('./ecosystem.base.cjs');

const [api, worker] = base('-dev', 'development');
const vite = { ...api, name: 'flyer-crawler-vite-dev', script: 'vite.js' };

module.exports = { apps: [api, worker, vite] };
