'use strict';

// All settings come from the environment. The defaults are good for `node server.js` on a laptop.

const path = require('node:path');
const { version } = require('./package.json');

module.exports = {
  version,
  environment: process.env.SHOP_ENVIRONMENT || 'development',
  greeting: process.env.SHOP_GREETING || 'Welcome to the shop',
  host: process.env.HOST || '127.0.0.1',
  port: Number(process.env.PORT || 4600),
  database: process.env.SHOP_DATABASE || null,
  spool: path.resolve(process.env.SHOP_SPOOL || path.join(__dirname, 'spool')),
};
