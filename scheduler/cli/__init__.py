"""``schedctl``: a command line on top of ``scheduler.client``.

Each command is a module of its own, imported when the command is used (``main``). Only data goes to stdout. Progress,
warnings and failures go to stderr.
"""
