'use strict';

// Reads the flyers that came in.

const { Flyers, repeat } = require('@flyer-crawler/shared');
const { version } = require('./package.json');

const flyers = new Flyers();

console.log(`worker ${version} started`);
repeat(() => {
  for (const id of flyers.list('new')) {
    flyers.finish(id);
    console.log(`read flyer ${id}`);
  }
});
