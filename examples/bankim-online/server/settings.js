'use strict';

// All settings come from the environment of the process, which PM2 keeps in its dump.

const { version } = require('../package.json');

const DEFAULT_SECRET = 'secret'; // as in the real system: the deploy's contract has to catch it

module.exports = {
  version,
  port: Number(process.env.PORT || 8004),
  hasOwnSecret: (process.env.JWT_SECRET || DEFAULT_SECRET) !== DEFAULT_SECRET,
  databases: {
    core: process.env.DATABASE_URL,
    content: process.env.CONTENT_DATABASE_URL,
    management: process.env.MANAGEMENT_DATABASE_URL,
  },
};
