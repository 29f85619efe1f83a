// What every page tries, and how it tells what it found.
export const query = new URLSearchParams(location.search);
export const note = query.get('note');

const next = (target, name) => new Promise((done, fail) => {
  target.addEventListener(name, done, {once: true});
  if (name !== 'close') target.addEventListener('close', () => fail(new Error('closed early')), {once: true});
});
export const hex = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))]
  .map((b) => b.toString(16).padStart(2, '0')).join('');

export const http = {
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

// Sockets of the backend at `base`; `count` of them at once.
export const sockets = (base, count) => {
  const open = async (path, ...more) => {
    const ws = new WebSocket(`${base}/ws/${path}`, ...more);
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
      const end = await next(new WebSocket(`${base}/ws/abort`), 'close');
      return [1006, 1014].includes(end.code);
    },
    async protocol() {
      const ws = await open('says', ['chat.v9', 'chat.v2']);
      ws.close();
      return ws.protocol;
    },
    async refused() {
      const ws = new WebSocket(`${base}/ws/refuse`);
      return (await next(ws, 'close')).code;
    },
    async many() {
      return (await Promise.all(Array.from({length: count}, async (_, number) => {
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

// What came of one try within its time.
export const outcome = async (attempt, seconds) => {
  const limit = new Promise((_, fail) => setTimeout(() => fail(new Error(`not done after ${seconds} s`)), seconds * 1000));
  try {
    return await Promise.race([attempt(), limit]);
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
};

// Posts what was found, where the test asks for it.
export const report = async (found) => {
  await fetch(`/report?note=${note}`, {method: 'POST', body: JSON.stringify(found)});
  document.body.textContent = JSON.stringify(found, null, 1);
};
