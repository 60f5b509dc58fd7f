import tests.properties  # noqa: F401 - loaded for what it sets
