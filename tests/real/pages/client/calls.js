// gRPC-Web calls by both client libraries; each returns what it found. PROBE is put in by the
// bundler: the descriptors of proto/probe.proto.
import {createFileRegistry, create, fromBinary, toBinary} from '@bufbuild/protobuf';
import {base64Decode} from '@bufbuild/protobuf/wire';
import {FileDescriptorSetSchema} from '@bufbuild/protobuf/wkt';
import {createClient} from '@connectrpc/connect';
import {createGrpcWebTransport} from '@connectrpc/connect-web';
import {GrpcWebClientBase, MethodDescriptor, MethodType} from 'grpc-web';

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, base64Decode(PROBE)));
const service = registry.getService('probe.v1.Probe');
const question = registry.getMessage('probe.v1.Question');
const reply = registry.getMessage('probe.v1.Reply');
const bytes = (length) => new Uint8Array(length).map((_, n) => (n * 7) % 251);
const same = (a, b) => a.length === b.length && a.every((byte, n) => byte === b[n]);

// @connectrpc/connect-web, binary.
export function connect(baseUrl, note) {
  const client = createClient(service, createGrpcWebTransport({baseUrl}));
  return {
    async unary() {
      const payload = bytes(300_000);
      const answer = await client.ask({payload, count: 7});
      return [answer.number, Number(answer.length), same(answer.payload, payload)];
    },
    async metadata() {
      let first, last;
      const answer = await client.ask({what: 'metadata'}, {
        headers: {'x-mine': 'mine'},
        onHeader: (headers) => { first = headers.get('x-first'); },
        onTrailer: (trailers) => { last = trailers.get('x-last'); },
      });
      const mine = JSON.parse(answer.text).filter(([name]) => name === 'x-mine');
      return [first, last, mine];
    },
    async stream() {
      const numbers = [];
      let right = true;
      for await (const one of client.expand({count: 20, size: 50_000})) {
        numbers.push(one.number);
        right &&= one.payload.length === 50_000;
      }
      return [numbers.length, numbers.every((number, n) => number === n), right];
    },
    async status() {
      try {
        await client.ask({what: 'status'});
        return 'answered';
      } catch (error) {
        return [error.code, error.rawMessage, error.details.length];
      }
    },
    async failed() {
      const seen = [];
      try {
        for await (const one of client.expand({what: 'fail', count: 2})) seen.push(one.number);
        return 'ended';
      } catch (error) {
        return [...seen, error.code, error.rawMessage, error.metadata.get('x-last')];
      }
    },
    async deadline() {
      try {
        // The far side's answer, not this library's own clock, which would be first.
        const headers = {'grpc-timeout': '200m'};
        await client.ask({what: 'wait', milliseconds: 20_000, payload: new Uint8Array()}, {headers});
        return 'answered';
      } catch (error) {
        return error.code;
      }
    },
    async cancel() {
      const stop = new AbortController();
      const payload = new TextEncoder().encode(`${note}-cancel`);
      try {
        for await (const one of client.expand({what: 'wait', milliseconds: 20_000, payload}, {signal: stop.signal})) {
          if (one.text === 'begun') stop.abort();
        }
        return 'ended';
      } catch (error) {
        return error.code;
      }
    },
    async missing() {
      try {
        await client.missing({});
        return 'answered';
      } catch (error) {
        return error.code;
      }
    },
  };
}

// grpc-web, in base64 or binary.
export function official(baseUrl, format) {
  const client = new GrpcWebClientBase({format});
  const method = (name, type) => new MethodDescriptor(
    `/probe.v1.Probe/${name}`, type, Object, Object,
    (request) => toBinary(question, create(question, request)), (got) => fromBinary(reply, got),
  );
  const ask = method('Ask', MethodType.UNARY);
  const expand = method('Expand', MethodType.SERVER_STREAMING);
  const unary = (request) => client.unaryCall(`${baseUrl}/probe.v1.Probe/Ask`, request, {}, ask);
  const streamed = (request) => new Promise((done) => {
    const seen = [];
    const stream = client.serverStreaming(`${baseUrl}/probe.v1.Probe/Expand`, request, {}, expand);
    stream.on('data', (one) => seen.push(one.number));
    stream.on('error', (error) => done([...seen, error.code, error.message]));
    stream.on('end', () => done([...seen, 'end']));
  });
  return {
    async unary() {
      const payload = bytes(100_001);
      const answer = await unary({payload, count: 7});
      return [answer.number, Number(answer.length), same(answer.payload, payload)];
    },
    async status() {
      try {
        await unary({what: 'status'});
        return 'answered';
      } catch (error) {
        return [error.code, error.message];
      }
    },
    ...(format === 'text' && {
      stream: () => streamed({count: 5, size: 1001}),
      failed: () => streamed({what: 'fail', count: 2}),
    }),
  };
}
