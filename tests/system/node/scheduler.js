// A scheduler that speaks only the core protocol: `node scheduler.js PROTO`. Prints its address.
//
// A line of its input is a method and the behaviours (see answers.js) of the next calls of it, `RegisterWorker code:13
// never`; it prints `planned`. Further calls are answered properly, with `success` unset. It prints each call as it
// comes, `RegisterWorker code:13`. At the line `drive` the worker that registered last is driven: a job that fails, and
// one that is stopped; what `QueryJob` says of each at its end is printed.
"use strict";

const readline = require("node:readline");
const { answer, grpc, load, serve } = require("./answers");

const [proto] = process.argv.slice(2);
const services = load(proto);
const planned = { RegisterWorker: [], DeregisterWorker: [] };
let address = "";

function planning(name, due) {
  return (call, callback) => {
    const behaviour = planned[name].shift() ?? "ok";
    console.log(`${name} ${behaviour}`);
    answer(behaviour, () => due(call.request), callback);
  };
}

function drive() {
  const worker = new services.Worker(address, grpc.credentials.createInsecure());
  const ask = (method, request) =>
    new Promise((resolve, reject) => {
      worker[method](request, (error, answered) => (error ? reject(error) : resolve(answered)));
    });
  const atEnd = async (jobID) => {
    for (;;) {
      const told = await ask("QueryJob", { jobID });
      if (told.done) {
        return `${told.error} ${told.errorText}`;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const run = async () => {
    console.log(await atEnd((await ask("StartJob", { command: "false" })).jobID));
    const { jobID } = await ask("StartJob", { command: "bash", path: "count.sh" });
    await ask("StopJob", { jobID });
    console.log(await atEnd(jobID));
  };
  run().catch((error) => console.log(`not driven: ${error.message}`));
}

const methods = {
  RegisterWorker: planning("RegisterWorker", (request) => {
    address = request.address;
    return { workerID: "node's worker: 1" };
  }),
  DeregisterWorker: planning("DeregisterWorker", () => ({})),
};

serve(services.Scheduler.service, methods).then((port) => {
  console.log(`127.0.0.1:${port}`);
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const [name, ...behaviours] = line.split(" ");
    if (name === "drive") {
      drive();
      return;
    }
    planned[name].push(...behaviours);
    console.log("planned");
  });
});
