"""Durable copies of the registry (``IStore``). ``database.prepare`` chooses by the URL.

Another database is a class in ``database``; another store provides ``IStore``, and ``sql.make_store`` makes it.
"""
