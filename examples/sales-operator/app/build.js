'use strict';

// The stand-in for a compiler: every source has to be valid JavaScript, and goes to dist/ with the version in it.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { version } = require('../package.json');

const [from, to] = ['src', 'dist'].map((name) => path.join(__dirname, name));

fs.rmSync(to, { recursive: true, force: true });
fs.mkdirSync(to);
for (const name of fs.readdirSync(from)) {
  const checked = spawnSync(process.execPath, ['--check', path.join(from, name)], { encoding: 'utf8' });
  if (checked.status !== 0) {
    console.error(`src/${name} does not compile:\n${checked.stderr}`);
    process.exit(1);
  }
  const source = fs.readFileSync(path.join(from, name), 'utf8');
  fs.writeFileSync(path.join(to, name), source.replaceAll('%VERSION%', version));
}
console.log(`built ${version}`);
