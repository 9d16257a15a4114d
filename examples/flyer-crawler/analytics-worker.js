'use strict';

// Counts what was read.

const { Flyers, repeat } = require('@flyer-crawler/shared');
const { version } = require('./package.json');

const flyers = new Flyers();
let counted = -1;

console.log(`analytics-worker ${version} started`);
repeat(() => {
  const now = flyers.list('read').length;
  if (now !== counted) console.log(`${now} flyers were read so far`);
  counted = now;
});
