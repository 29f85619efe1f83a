// The server of the interoperability tests, made with @grpc/grpc-js.
//
// usage: server.js PORT
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { grpc, TestService, payload, INITIAL, TRAILING } = require('./service');

// Sends the initial metadata back that asks for it; returns the trailing metadata that does.
function echo(call) {
  const [initial, trailing] = [call.metadata.get(INITIAL), call.metadata.get(TRAILING)];
  if (initial.length) {
    const first = new grpc.Metadata();
    first.set(INITIAL, initial[0]);
    call.sendMetadata(first);
  }
  const last = new grpc.Metadata();
  if (trailing.length) last.set(TRAILING, trailing[0]);
  return last;
}

// The error with which the request wants the call to end, if it does.
function failure(request) {
  const wanted = request.response_status;
  return wanted && wanted.code ? { code: wanted.code, details: wanted.message } : null;
}

async function answer(call, request) {
  for (const wanted of request.response_parameters) {
    if (wanted.interval_us) await sleep(wanted.interval_us / 1000);
    if (!call.cancelled) call.write({ payload: payload(wanted.size) });
  }
}

const service = {
  EmptyCall: (call, done) => done(null, {}),

  UnaryCall(call, done) {
    const last = echo(call);
    done(failure(call.request), { payload: payload(call.request.response_size) }, last);
  },

  StreamingOutputCall(call) {
    answer(call, call.request).then(() => call.end());
  },

  StreamingInputCall(call, done) {
    let size = 0;
    call.on('data', (request) => { size += request.payload ? request.payload.body.length : 0; });
    call.on('end', () => done(null, { aggregated_payload_size: size }));
  },

  FullDuplexCall(call) {
    const last = echo(call);
    // One request after the other, although each may wait.
    let turn = Promise.resolve();
    call.on('data', (request) => {
      const error = failure(request);
      if (error) call.emit('error', error);
      else turn = turn.then(() => answer(call, request));
    });
    call.on('end', () => turn.then(() => call.end(last)));
  },
};

const server = new grpc.Server();
// One method has no handler: it shall answer that it is not implemented.
server.addService(TestService.service, service);
server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
