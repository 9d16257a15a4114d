'use strict';

// The stand-in for the development server of the front end.

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const page = path.join(__dirname, 'web', 'index.html');
const server = http.createServer((request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/html' });
  response.end(fs.readFileSync(page));
});

server.listen(Number(process.env.VITE_PORT || 5173), '127.0.0.1', () => console.log('vite listens'));
process.once('SIGINT', () => process.exit(0));
