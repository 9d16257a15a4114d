'use strict';

// Runs each migration that the database has not had: `npm run db:migrate`.

const { migrate, missing } = require('prime-cloud-pro-database');

for (const name of missing()) {
  migrate(name);
  console.log(`migrated: ${name}`);
}
