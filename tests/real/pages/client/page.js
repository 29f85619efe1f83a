// Everything that a page can do at once, through an entry of TLS; posts what it found.
import {connect, official} from './calls.js';
import {hex, http, note, outcome, report, sockets} from '../tries.js';

const other = (name) => `${name}.test:${location.port}`;
// A socket to this page's own origin shares its connection; another host has none to share.
const socketsOf = (host) => sockets(`wss://${host}`, 10);

const requests = {
  ...http,
  version: () => performance.getEntriesByType('navigation')[0].nextHopProtocol,
  // Streamed up: what is not read yet cannot have been sent.
  async upload() {
    const pieces = Array.from({length: 20}, (_, n) => new Uint8Array(100_000).fill(n));
    let pulled = 0;
    const body = new ReadableStream({
      pull(to) {
        if (pulled === pieces.length) to.close();
        else to.enqueue(pieces[pulled]);
        pulled += 1;
      },
    });
    const said = await (await fetch('/digest', {method: 'POST', body, duplex: 'half'})).json();
    return [said.length, said.sha256 === await hex(await new Blob(pieces).arrayBuffer())];
  },
  async stream() {
    // An answer without end: what is read of it was not collected first.
    const reader = (await fetch(`/never-read?note=${note}-stream`)).body.getReader();
    const {done, value} = await reader.read();
    await reader.cancel();
    return [done, value.length > 0];
  },
};

const groups = {
  http: requests,
  'socket h2': socketsOf(location.host),
  'socket h1': socketsOf(other('socket')),
  connect: connect(location.origin, note),
  'connect elsewhere': connect(`https://${other('rpc')}`, `${note}-elsewhere`),
  'grpc-web text': official(location.origin, 'text'),
  'grpc-web binary': official(location.origin, 'binary'),
};

const found = {};
await Promise.all(Object.entries(groups).flatMap(([group, tries]) => Object.entries(tries).map(async ([name, attempt]) => {
  found[`${group}: ${name}`] = await outcome(attempt, 20);
})));
await report(found);
