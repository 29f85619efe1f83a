// The client of the interoperability tests, made with @grpc/grpc-js.
//
// usage: client.js HOST:PORT
//
// Prints a line for each case: `ok NAME` or `FAIL NAME: what came`.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const { grpc, TestService, UnimplementedService, payload, INITIAL, TRAILING } = require('./service');

const SECONDS = 10;
const REQUESTS = [27182, 8, 1828, 45904];
const RESPONSES = [31415, 9, 2653, 58979];
const LARGE = { request: 271828, response: 314159 };
const SPECIAL = '\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n';
const { status } = grpc;

const address = process.argv[2];
const plain = grpc.credentials.createInsecure();
const open = (Service, options = {}) => new Service(address, plain, { 'grpc.enable_http_proxy': 0, ...options });
const stub = open(TestService);
const zipped = open(TestService, { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });
const soon = (seconds = SECONDS) => ({ deadline: Date.now() + seconds * 1000 });
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const isZeros = (message, size) => assert.ok(message.payload.body.equals(Buffer.alloc(size)), `not ${size} zeros`);
const large = (more = {}) => ({ response_size: LARGE.response, payload: payload(LARGE.request), ...more });
const output = (size, request, more = {}) => ({
  response_parameters: [{ size, ...more }], payload: payload(request),
});

// A call with one answer: how it ended, with its answer and all metadata.
function unary(on, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve) => {
    let first, answer;
    const call = on[method](request, metadata, soon(), (_, got) => { answer = got; });
    call.on('metadata', (got) => { first = got; });
    call.on('status', (end) => resolve({ ...end, first, answer }));
  });
}

// The end of a call whose answers nobody wants any more.
function ended(call) {
  call.on('error', () => {});
  call.on('data', () => {});
  return new Promise((resolve) => call.on('status', resolve));
}

async function stream(call, take) {
  const end = new Promise((resolve) => call.on('status', resolve));
  call.on('error', () => {});
  for await (const message of call) take(message);
  return end;
}

const isOk = (end) => assert.strictEqual(end.code, status.OK, end.details);

async function largeUnary(on, more) {
  const end = await unary(on, 'UnaryCall', large(more));
  isOk(end);
  isZeros(end.answer, LARGE.response);
}

async function clientStreaming(on) {
  const answer = await new Promise((resolve, reject) => {
    const call = on.StreamingInputCall(soon(), (error, got) => (error ? reject(error) : resolve(got)));
    REQUESTS.forEach((size) => call.write({ payload: payload(size) }));
    call.end();
  });
  assert.strictEqual(answer.aggregated_payload_size, sum(REQUESTS));
}

async function serverStreaming(more = {}) {
  const response_parameters = RESPONSES.map((size) => ({ size, ...more }));
  const sizes = [...RESPONSES];
  isOk(await stream(stub.StreamingOutputCall({ response_parameters }, soon()), (m) => isZeros(m, sizes.shift())));
  assert.strictEqual(sizes.length, 0);
}

const cases = {
  async empty_unary() {
    const end = await unary(stub, 'EmptyCall', {});
    isOk(end);
    assert.deepStrictEqual({ ...end.answer }, {});
  },
  large_unary: () => largeUnary(stub),
  client_streaming: () => clientStreaming(stub),
  server_streaming: () => serverStreaming(),
  async ping_pong() {
    const call = stub.FullDuplexCall(soon());
    const end = new Promise((resolve) => call.on('status', resolve));
    for (const [turn, size] of RESPONSES.entries()) {
      call.write(output(size, REQUESTS[turn]));
      isZeros((await once(call, 'data'))[0], size);
    }
    call.end();
    isOk(await end);
  },
  async empty_stream() {
    const call = stub.FullDuplexCall(soon());
    call.end();
    let count = 0;
    isOk(await stream(call, () => { count += 1; }));
    assert.strictEqual(count, 0);
  },
  async cancel_after_begin() {
    const call = stub.StreamingInputCall(soon(), () => {});
    const end = ended(call);
    await new Promise((resolve) => setTimeout(resolve, 50));
    call.cancel();
    assert.strictEqual((await end).code, status.CANCELLED);
  },
  async cancel_after_first_response() {
    const call = stub.FullDuplexCall(soon());
    const end = ended(call);
    call.write(output(RESPONSES[0], REQUESTS[0]));
    isZeros((await once(call, 'data'))[0], RESPONSES[0]);
    call.cancel();
    assert.strictEqual((await end).code, status.CANCELLED);
  },
  async timeout_on_sleeping_server() {
    // The server would answer after a second.
    const call = stub.FullDuplexCall(soon(0.05));
    const end = ended(call);
    call.write(output(RESPONSES[0], REQUESTS[0], { interval_us: 1000000 }));
    assert.strictEqual((await end).code, status.DEADLINE_EXCEEDED);
  },
  async custom_metadata() {
    const metadata = new grpc.Metadata();
    const [text, raw] = ['test_initial_metadata_value', Buffer.from([0xab, 0xab, 0xab])];
    metadata.set(INITIAL, text);
    metadata.set(TRAILING, raw);
    const check = (first, last) => {
      assert.deepStrictEqual(first.get(INITIAL), [text]);
      assert.deepStrictEqual(last.get(TRAILING), [raw]);
    };
    const end = await unary(stub, 'UnaryCall', large(), metadata);
    isOk(end);
    check(end.first, end.metadata);
    const call = stub.FullDuplexCall(metadata, soon());
    const first = once(call, 'metadata');
    const last = new Promise((resolve) => call.on('status', resolve));
    call.write(output(LARGE.response, LARGE.request));
    isZeros((await once(call, 'data'))[0], LARGE.response);
    call.end();
    check((await first)[0], (await last).metadata);
  },
  async status_code_and_message() {
    const response_status = { code: 2, message: 'test status message' };
    const call = stub.FullDuplexCall(soon());
    const both = ended(call);
    call.write({ response_status });
    for (const end of [await unary(stub, 'UnaryCall', { response_status }), await both]) {
      assert.deepStrictEqual([end.code, end.details], [2, response_status.message]);
    }
  },
  async special_status_message() {
    const end = await unary(stub, 'UnaryCall', { response_status: { code: 2, message: SPECIAL } });
    assert.deepStrictEqual([end.code, end.details], [2, SPECIAL]);
  },
  async unimplemented_method() {
    assert.strictEqual((await unary(stub, 'UnimplementedCall', {})).code, status.UNIMPLEMENTED);
  },
  async unimplemented_service() {
    const other = open(UnimplementedService);
    assert.strictEqual((await unary(other, 'UnimplementedCall', {})).code, status.UNIMPLEMENTED);
    other.close();
  },
  async client_compressed_unary() {
    await largeUnary(zipped);
    await largeUnary(stub);
  },
  client_compressed_streaming: () => clientStreaming(zipped),
  async server_compressed_unary() {
    await largeUnary(stub, { response_compressed: { value: true } });
    await largeUnary(stub, { response_compressed: { value: false } });
  },
  server_compressed_streaming: () => serverStreaming({ compressed: { value: true } }),
};

async function main() {
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`FAIL ${name}: ${String(error).replaceAll('\n', ' ').slice(0, 300)}`);
    }
  }
  stub.close();
  zipped.close();
}

main();
