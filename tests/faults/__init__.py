"""Fault experiments: real daemons are killed, stopped and cut off under load, and what was promised is checked.

``python -m tests.faults`` runs them; docs/guarantees.md has the promises, P1 to P9.

Theory of operation. A run keeps three accounts of the same jobs, each made
without the others: the *history*, what clients asked and were told and when
(``history``, written by ``load`` with its ``followers`` and ``errands``); the *evidence*, what each job itself wrote
down about having run (``job``); and the worker's spools. ``checker`` is a pure
function from these to the violations. ``daemons`` does the harm, and the
modules of ``experiments`` decide when.
"""
