'use strict';

// The stand-in for a type check and a bundler: every source has to be valid JavaScript. The front end goes to dist/.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { version } = require('./package.json');

for (const name of fs.readdirSync(path.join(__dirname, 'src'))) {
  const checked = spawnSync(process.execPath, ['--check', path.join(__dirname, 'src', name)], { encoding: 'utf8' });
  if (checked.status !== 0) {
    console.error(`src/${name} is not valid JavaScript:\n${checked.stderr}`);
    process.exit(1);
  }
}

const dist = path.join(__dirname, 'dist');
const page = fs.readFileSync(path.join(__dirname, 'web', 'index.html'), 'utf8');
fs.rmSync(dist, { recursive: true, force: true });
fs.mkdirSync(dist);
fs.writeFileSync(path.join(dist, 'index.html'), page.replaceAll('%VERSION%', version));
console.log(`built ${version}`);
