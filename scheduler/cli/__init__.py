"""``schedctl``: the command line over ``scheduler.client``.

Each command is a module of its own, imported when that command is used (``main``). Only data goes to stdout; progress,
warnings and failures go to stderr.
"""
