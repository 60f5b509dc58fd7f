"""Protocol buffer code, generated from ``proto/`` when the package is built; imported by ``scheduler.rpc`` only."""
