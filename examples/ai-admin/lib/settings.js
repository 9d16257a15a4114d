'use strict';

// All settings are in the .env beside the code, and nowhere else.

const path = require('node:path');
const dotenv = require('./dotenv');
const { version } = require('../package.json');

const env = dotenv.read(path.join(__dirname, '..', '.env'));

/** The services. The port of each is the first port plus its index in this list. */
const SERVICES = ['gateway', 'auth', 'chat', 'documents', 'search', 'billing', 'notifications'];

module.exports = {
  SERVICES,
  version,
  env,
  port: (service) => Number(env.FIRST_PORT) + SERVICES.indexOf(service),
};
