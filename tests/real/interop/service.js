// What the client and the server of the interoperability tests share.
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const file = path.join(__dirname, 'test.proto');
const definition = loader.loadSync(file, { keepCase: true, longs: Number, defaults: true });
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(definition).grpc.testing;

const payload = (size) => ({ body: Buffer.alloc(size) });

module.exports = {
  grpc,
  TestService,
  UnimplementedService,
  payload,
  INITIAL: 'x-grpc-test-echo-initial',
  TRAILING: 'x-grpc-test-echo-trailing-bin',
};
