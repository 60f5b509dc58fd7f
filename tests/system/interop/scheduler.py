"""A scheduler that speaks only the core protocol: ``scheduler.py STUBS``.

It prints its address, and drives the first worker that registers: with a job that fails, and a job that it stops. It
prints QueryJob's answer about each at its end. It leaves ``success`` unset in its answers, gives an id that ours would
not give, and prints each registration with its number, and each departure.
"""

# ruff: noqa: T201 - what it prints is what the test reads
from __future__ import annotations

import itertools
import queue
import sys
import time
from concurrent import futures

import grpc

sys.path.insert(0, sys.argv[1])
import core_pb2 as pb
import core_pb2_grpc as pb_grpc

registered: queue.Queue[str] = queue.Queue()
registrations = itertools.count(1)


class Scheduler(pb_grpc.SchedulerServicer):
    def RegisterWorker(self, request, context):
        print("registration", next(registrations), flush=True)
        registered.put(request.address)
        return pb.RegisterRes(workerID="host.example:5, given by them")

    def DeregisterWorker(self, request, context):
        print("deregistered", request.workerID, flush=True)
        return pb.DeregisterRes()


server = grpc.server(futures.ThreadPoolExecutor(4))
pb_grpc.add_SchedulerServicer_to_server(Scheduler(), server)
print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
server.start()

with grpc.insecure_channel(registered.get(timeout=30)) as channel:
    worker = pb_grpc.WorkerStub(channel)

    def at_end(job_id: str) -> str:
        deadline = time.monotonic() + 30
        while not (answer := worker.QueryJob(pb.QueryJobReq(jobID=job_id), timeout=10)).done:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return f"{answer.error} {answer.errorText}"

    print(at_end(worker.StartJob(pb.StartJobReq(command="false"), timeout=10).jobID), flush=True)
    print(at_end(worker.StartJob(pb.StartJobReq(command="true"), timeout=10).jobID), flush=True)
    counting = worker.StartJob(pb.StartJobReq(command="bash", path="count.sh"), timeout=10).jobID
    assert not worker.QueryJob(pb.QueryJobReq(jobID=counting), timeout=10).done
    worker.StopJob(pb.StopJobReq(jobID=counting), timeout=30)
    stopped = worker.QueryJob(pb.QueryJobReq(jobID=counting), timeout=10)
    assert stopped.done  # without `wait` it is answered at the end
    print(f"{stopped.error} {stopped.errorText}", flush=True)
server.wait_for_termination()
