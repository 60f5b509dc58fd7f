"""A worker that speaks only the core protocol: ``worker.py STUBS SCHEDULER``, with the stubs in that folder."""

# ruff: noqa: T201 - what it prints is what the test reads
from __future__ import annotations

import subprocess
import sys
from concurrent import futures

import grpc

sys.path.insert(0, sys.argv[1])
import core_pb2 as pb
import core_pb2_grpc as pb_grpc


class Worker(pb_grpc.WorkerServicer):
    def __init__(self) -> None:
        self.jobs: dict[str, subprocess.Popen[bytes]] = {}

    def StartJob(self, request, context):
        job_id = f"theirs/{len(self.jobs)}.5 at host:1"
        self.jobs[job_id] = subprocess.Popen([request.command, *([request.path] if request.path else [])])
        return pb.StartJobRes(jobID=job_id)

    def StopJob(self, request, context):
        self.jobs[request.jobID].terminate()
        return pb.StopJobRes()

    def QueryJob(self, request, context):
        code = self.jobs[request.jobID].poll()
        if not code:
            return pb.QueryJobRes(done=code is not None)
        text = f"exit status {code}" if code > 0 else "signal: terminated"
        return pb.QueryJobRes(done=True, error=True, errorText=text)


server = grpc.server(futures.ThreadPoolExecutor(4))
pb_grpc.add_WorkerServicer_to_server(Worker(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(sys.argv[2]) as channel:
    answer = pb_grpc.SchedulerStub(channel).RegisterWorker(pb.RegisterReq(address=f"127.0.0.1:{port}"), timeout=20)
assert answer.success
print(answer.workerID, flush=True)
server.wait_for_termination()
