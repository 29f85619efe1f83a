// Everything that a page can do at once, through an entry of TLS; posts what it found.
import {connect, official} from './calls.js';

const query = new URLSearchParams(location.search);
const note = query.get('note');
const other = (name) => `${name}.test:${location.port}`;
const next = (target, name) => new Promise((done, fail) => {
  target.addEventListener(name, done, {once: true});
  if (name !== 'close') target.addEventListener('close', () => fail(new Error('closed early')), {once: true});
});
const hex = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))]
  .map((b) => b.toString(16).padStart(2, '0')).join('');

// A socket to this page's own origin shares its connection; another host has none to share.
const sockets = (host) => {
  const open = async (path, ...more) => {
    const ws = new WebSocket(`wss://${host}/ws/${path}`, ...more);
    ws.binaryType = 'arraybuffer';
    await next(ws, 'open');
    return ws;
  };
  return {
    async text() {
      const ws = await open('echo');
      ws.send('grüße 🚀');
      const back = (await next(ws, 'message')).data;
      ws.close(3001, 'done');
      const end = await next(ws, 'close');
      return [back, ws.extensions.split(';')[0], end.code, end.wasClean];
    },
    async binary() {
      const ws = await open('digest');
      const bytes = new Uint8Array(2_000_000).map((_, n) => (n * 7) % 253);
      ws.send(bytes);
      const right = (await next(ws, 'message')).data === await hex(bytes);
      ws.close();
      return right;
    },
    async closed() {
      const ws = await open('closes?code=4321&reason=because');
      const end = await next(ws, 'close');
      return [end.code, end.reason, end.wasClean];
    },
    async cut() {
      // It may be gone before the browser tells that it was open.
      const end = await next(new WebSocket(`wss://${host}/ws/abort`), 'close');
      return [1006, 1014].includes(end.code);
    },
    async protocol() {
      const ws = await open('says', ['chat.v9', 'chat.v2']);
      ws.close();
      return ws.protocol;
    },
    async refused() {
      const ws = new WebSocket(`wss://${host}/ws/refuse`);
      return (await next(ws, 'close')).code;
    },
    async many() {
      return (await Promise.all(Array.from({length: 10}, async (_, number) => {
        const ws = await open('echo');
        for (let turn = 0; turn < 20; turn += 1) {
          ws.send(`${number}/${turn}`);
          if ((await next(ws, 'message')).data !== `${number}/${turn}`) return false;
        }
        ws.close();
        return true;
      }))).every(Boolean);
    },
  };
};

const http = {
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
  async abort() {
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 200);
    try {
      await fetch(`/wait?ms=20000&note=${note}-abort`, {signal: stop.signal});
      return 'answered';
    } catch (error) {
      return error.name;
    }
  },
  async events() {
    const source = new EventSource('/events?n=3&ms=150');
    const ids = [];
    await new Promise((done) => {
      source.onmessage = (event) => { ids.push(event.lastEventId); if (ids.length === 3) done(); };
    });
    source.close();
    return ids;
  },
};

const groups = {
  http,
  'socket h2': sockets(location.host),
  'socket h1': sockets(other('socket')),
  connect: connect(location.origin, note),
  'connect elsewhere': connect(`https://${other('rpc')}`, `${note}-elsewhere`),
  'grpc-web text': official(location.origin, 'text'),
  'grpc-web binary': official(location.origin, 'binary'),
};

const found = {};
await Promise.all(Object.entries(groups).flatMap(([group, tries]) => Object.entries(tries).map(async ([name, attempt]) => {
  const limit = new Promise((_, fail) => setTimeout(() => fail(new Error('not done after 20 s')), 20_000));
  try {
    found[`${group}: ${name}`] = await Promise.race([attempt(), limit]);
  } catch (error) {
    found[`${group}: ${name}`] = `${error.name}: ${error.message}`;
  }
})));
await fetch(`/report?note=${note}`, {method: 'POST', body: JSON.stringify(found)});
document.body.textContent = JSON.stringify(found, null, 1);
