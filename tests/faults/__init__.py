"""Fault experiments: real daemons are killed, stopped and cut off under load, and the promises are checked.

``python -m tests.faults`` runs them. docs/guarantees.md has the promises, P1 to P9.

Theory of operation. A run keeps three independent accounts of the same jobs. The *history* contains the requests of
clients, their answers, and the times (``history``, written by ``load`` with its ``followers`` and ``errands``). The
*evidence* is what each job itself wrote down about its run (``job``). The third account are the workers' spools.
``checker`` is a pure function from these to the violations. ``daemons`` can harm the processes, and the modules of
``experiments`` decide when.
"""
