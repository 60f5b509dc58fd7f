"""Random hostile input for the real daemons: HTTP requests, gRPC messages and HTTP/2 frames.

Theory of operation. A case is made from the seed, the name of its generator and its number alone, and from a few ids
that the run has learnt. It is sent, and gives an outcome, such as a status. After some seconds of cases the run checks
what no input may change: both daemons run and answer, their logs show no error, a job runs, and after a while the
daemons hold no more files, threads and memory than they may. A case that breaks a promise is a finding.
"""
