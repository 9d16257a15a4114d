'use strict';

// Runs what the database has not seen, each once: `npm run db:migrate`.

const { migrate, missing } = require('prime-cloud-pro-database');

for (const name of missing()) {
  migrate(name);
  console.log(`migrated: ${name}`);
}
