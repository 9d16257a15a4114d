'use strict';

// Migrates the database to the schema of this version of the code: `npm run migrate`.

const path = require('node:path');
const { Database, migrations } = require('@flyer-crawler/shared');

const database = new Database();

for (const [number, file] of migrations(path.join(__dirname, 'migrations'))) {
  const content = database.read();
  if (number <= content.schema) continue;
  database.write({ ...require(file)(content), schema: number });
  console.log(`migrated to ${path.basename(file, '.js')}`);
}
