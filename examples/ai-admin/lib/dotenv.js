'use strict';

// The part of the package dotenv that these services need.

const fs = require('node:fs');

const LINE = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|([^#\n]*?))\s*(?:#.*)?$/;
const ESCAPED = { n: '\n', r: '\r', t: '\t' };

/** The variables of a file. A value in single quotes is literal; in double quotes it has escapes. */
function parse(text) {
  const found = {};
  for (const line of text.split('\n')) {
    const [, name, single, double, bare] = line.match(LINE) ?? [];
    if (name) found[name] = single ?? double?.replace(/\\(.)/g, (_all, char) => ESCAPED[char] ?? char) ?? bare;
  }
  return found;
}

module.exports = { parse, read: (file) => parse(fs.readFileSync(file, 'utf8')) };
