'use strict';

// The stand-in for a bundler: writes dist/, with the script's hash in its name because of browser caches.

const fs = require('node:fs');
const path = require('node:path');
const { createHash } = require('node:crypto');
const { version } = require('../package.json');

const dist = path.join(__dirname, '..', 'dist');
const script = fs.readFileSync(path.join(__dirname, 'app.js'));
const name = `app.${createHash('sha256').update(script).digest('hex').slice(0, 8)}.js`;
const page = fs.readFileSync(path.join(__dirname, 'index.html'), 'utf8');

fs.rmSync(dist, { recursive: true, force: true });
fs.mkdirSync(dist);
fs.writeFileSync(path.join(dist, name), script);
fs.writeFileSync(path.join(dist, 'index.html'), page.replace('%VERSION%', version).replace('%SCRIPT%', name));
console.log(`built ${version}: index.html, ${name}`);
