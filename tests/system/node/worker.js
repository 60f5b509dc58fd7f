// A worker that speaks only the core protocol: `node worker.js PROTO SCHEDULER`. Prints its id once it is registered.
//
// Its jobs are no processes. The path of a job says how calls about it are answered, and how it ends: a list of
//   start=BEHAVIOUR query=BEHAVIOUR stop=BEHAVIOUR  separated by commas; see answers.js
//   for=SECONDS                                     it ends by itself, with exit status 0
//   catches                                         it ends with exit status 0 when it is stopped
// Each line of its input is carried out: `deregister`, `register`, `starts` (prints how often each path was started).
"use strict";

const readline = require("node:readline");
const { answer, grpc, load, serve } = require("./answers");

const [proto, scheduler] = process.argv.slice(2);
const services = load(proto);
const jobs = new Map();
const starts = {};

function read(path) {
  const job = { start: "ok", query: "ok", stop: "ok", error: "", done: false };
  for (const part of path.split(",").filter(Boolean)) {
    const [name, value = true] = part.split("=");
    job[name] = value;
  }
  return job;
}

function end(job, error = "") {
  if (!job.done) {
    Object.assign(job, { done: true, error });
  }
}

function startJob(call, callback) {
  const { path } = call.request;
  const job = read(path);
  starts[path] = (starts[path] ?? 0) + 1;
  const due = () => {
    const jobID = `node/${jobs.size + 1}`;
    jobs.set(jobID, job);
    if (job.for !== undefined) {
      setTimeout(end, 1000 * Number(job.for), job);
    }
    return { jobID };
  };
  answer(job.start, due, callback);
}

// Calls `due` with the job, or answers that there is none.
function about(name, due) {
  return (call, callback) => {
    const job = jobs.get(call.request.jobID);
    if (job === undefined) {
      callback({ code: grpc.status.NOT_FOUND, details: "no such job, says node" });
    } else {
      answer(job[name], () => due(job), callback);
    }
  };
}

const methods = {
  StartJob: startJob,
  QueryJob: about("query", (job) => ({ done: job.done, error: Boolean(job.error), errorText: job.error })),
  StopJob: about("stop", (job) => {
    end(job, job.catches ? "" : "signal: terminated");
    return {};
  }),
};

serve(services.Worker.service, methods).then((port) => {
  const client = new services.Scheduler(scheduler, grpc.credentials.createInsecure());
  let workerID = "";
  const asks = {
    register: () =>
      client.RegisterWorker({ address: `127.0.0.1:${port}` }, (error, registered) => {
        workerID = error ? workerID : registered.workerID;
        console.log(error ? `not registered: ${error.details}` : workerID);
      }),
    deregister: () =>
      client.DeregisterWorker({ workerID }, (error) => {
        console.log(error ? `not deregistered: ${error.details}` : "deregistered");
      }),
  };
  asks.starts = () => console.log(JSON.stringify(starts));
  asks.register();
  readline.createInterface({ input: process.stdin }).on("line", (line) => asks[line]());
});
