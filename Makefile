# From a bare clone, with Python 3.11+ and make: everything else goes into .venv.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
CORES := $(shell getconf _NPROCESSORS_ONLN)
SOURCES := setup.py pyproject.toml $(shell find scheduler proto twisted_plugins -name '*_pb2*' -prune -o -type f \
	\( -name '*.py' -o -name '*.proto' \) -print)

.PHONY: demo test compare faults fuzz simulate bench clean

# Scheduler, two workers and a sample job, until Ctrl-C; `make demo ONCE=1` ends after the job.
demo: $(VENV)/installed
	@$(VENV)/bin/python examples/demo.py $(if $(ONCE),--once)

# Unit, contract, integration and system tests, a minute of fault experiments, some seconds of hostile input, half a
# minute of simulation, lint and types.
test: $(VENV)/tox
	@$(VENV)/bin/tox run

# `schedctl run` compared with local runs of 200 random scripts, about six minutes; `make test` tries 20.
compare: $(VENV)/tox
	@HYPOTHESIS_EXAMPLES=$(or $(EXAMPLES),200) $(VENV)/bin/tox run -e system -- -s tests/system/test_run_as_local.py

# All fault experiments in full, about an hour; `make faults ARGS="--seed 1 --rounds 5 kill-worker"` some of them,
# `make faults RECORD=1` puts the figures into docs/guarantees.md.
faults: $(VENV)/tox
	@$(VENV)/bin/tox run -e faults -- $(or $(ARGS),all) $(if $(RECORD),--record $(CURDIR)/docs/guarantees.md)

# Random hostile input for real daemons, for SECONDS (300), with a seed that is printed: `make fuzz ARGS="--seed 1"`
# repeats one.
fuzz: $(VENV)/tox
	@$(VENV)/bin/tox run -e fuzz -- --seconds $(or $(SECONDS),300) $(ARGS)

# The whole system in virtual time, for SECONDS (600) with seeds that were not run before, on all cores; `make simulate
# RECORD=1` puts the figures into docs/guarantees.md, `make simulate MUTATIONS=1` proves that it finds what it is for.
simulate: $(VENV)/tox
ifdef MUTATIONS
	@$(VENV)/bin/tox run -e mutations -- $(ARGS)
else
	@$(VENV)/bin/tox run -e simulation -- $(or $(ARGS),--fresh --seconds $(or $(SECONDS),600) --processes $(CORES)) \
		$(if $(RECORD),--record $(CURDIR)/docs/guarantees.md)
endif

# A table of what it costs; `make bench ARGS=--secure`: with HTTPS, a token and mutual TLS.
bench: $(VENV)/installed
	@$(VENV)/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .tox build dist var *.egg-info scheduler/pb/*_pb2* _trial_temp* .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pip:
	$(if $(PYTHON),,$(error Python 3.11 or newer is needed, with its venv module))
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Installed for real: twistd does not see the plugin of an editable install.
$(VENV)/installed: $(SOURCES) | $(VENV)/pip
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check '.[postgresql]'
	@touch $@

$(VENV)/tox: | $(VENV)/pip
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'tox>=4.20'
	@touch $@
