'use strict';

fetch('/api/version')
  .then((response) => response.json())
  .then(({ version }) => {
    document.getElementById('server').textContent = `Server version ${version}`;
  });
