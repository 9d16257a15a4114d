'use strict';

// Runs each migration that the database has not had. If one fails, the database stays as it was.

const { missing, read, write } = require('sales-operator-db');

for (const name of missing()) {
  const content = require(`./migrations/${name}`)(read());
  write({ ...content, migrations: [...content.migrations, name] });
  console.log(`migrated: ${name}`);
}
