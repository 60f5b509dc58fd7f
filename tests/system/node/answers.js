// How a stand-in answers a call: what both have in common.
//
// A behaviour is one of
//   ok           the answer that is due
//   code:N       the status of that code, with the details "code N, says node"
//   long:N       the same with 20,000 characters of details
//   large        an answer of 20 MB
//   late:S       the answer that is due, S seconds later
//   never        none
"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const LONG = 20_000;
const LARGE = 20_000_000;

// A field that the message does not have: 15, of bytes.
function large() {
  const bytes = Buffer.alloc(LARGE, "x");
  const length = [];
  for (let rest = LARGE; rest; rest >>>= 7) {
    length.push((rest & 127) | (rest > 127 ? 128 : 0));
  }
  return Buffer.concat([Buffer.from([(15 << 3) | 2, ...length]), bytes]);
}

// The services of the proto. An answer may be given as bytes.
function load(proto) {
  const services = grpc.loadPackageDefinition(loader.loadSync(proto, { defaults: true })).jobscheduler;
  for (const name of ["Scheduler", "Worker"]) {
    for (const method of Object.values(services[name].service)) {
      const serialize = method.responseSerialize;
      method.responseSerialize = (answer) => (Buffer.isBuffer(answer) ? answer : serialize(answer));
    }
  }
  return services;
}

// Answer a call as the behaviour says; `due` makes the answer that is due.
function answer(behaviour, due, callback) {
  const [kind, value] = behaviour.split(":");
  const details = `code ${value}, says node`;
  switch (kind) {
    case "ok":
      return callback(null, due());
    case "code":
      return callback({ code: Number(value), details });
    case "long":
      return callback({ code: Number(value), details: details.padEnd(LONG, "!") });
    case "large":
      due();
      return callback(null, large());
    case "late":
      return setTimeout(() => callback(null, due()), 1000 * Number(value));
    case "never":
      return undefined;
    default:
      throw new Error(`no behaviour: ${behaviour}`);
  }
}

// Serve these methods; resolves with the port.
function serve(service, methods) {
  const server = new grpc.Server({ "grpc.max_send_message_length": -1 });
  server.addService(service, methods);
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}

module.exports = { answer, grpc, load, serve };
