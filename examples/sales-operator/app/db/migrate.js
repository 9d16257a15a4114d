'use strict';

// Runs what the database has not seen, each once. One that fails leaves the database as it was.

const { missing, read, write } = require('sales-operator-db');

for (const name of missing()) {
  const content = require(`./migrations/${name}`)(read());
  write({ ...content, migrations: [...content.migrations, name] });
  console.log(`migrated: ${name}`);
}
