# Bandstand's commands; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test faults storm storm-learners draws lint bench bench-learners bench-bandits bench-join bench-join-growth bench-join-memory dev lock clean

help:  ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(READY): locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Bandstand needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12 …" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## Run the main job on real local servers (about two minutes after the installs)
	$(BIN)/bandstand demo

test: $(READY)  ## Run all tests, on real local servers
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

faults: $(READY)  ## Run the long fault tests of the join, too (a quarter of an hour)
	LONG_FAULTS=1 $(BIN)/python -m pytest tests/streams/test_outages.py tests/streams/test_join_cluster.py tests/streams/test_join_faults.py tests/streams/test_takeover.py

storm: $(READY)  ## Kill, freeze and replace workers and broker, round by round (ROUNDS=200 SEED=7)
	$(BIN)/python -m tests.streams.storm_join $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

storm-learners: $(READY)  ## The same for learners and publishers (ROUNDS=200 SEED=7)
	$(BIN)/python -m tests.streams.storm_learn $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

draws: $(READY)  ## Compare computed probabilities with draws (POSTERIORS=1000 DRAWS=10000000 KINDS=student)
	$(BIN)/python -m tests.learners.naive_draws $(if $(KINDS),--kinds $(KINDS)) $(if $(POSTERIORS),--posteriors $(POSTERIORS)) $(if $(DRAWS),--draws $(DRAWS))

lint: $(READY)  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)  ## Measure, side by side with named peers
	$(BIN)/python -m benchmarks

bench-learners: $(READY)  ## Measure learning beside five libraries, and write docs/benchmarks.md (some minutes)
	$(BIN)/python -m benchmarks.learners

bench-bandits: $(READY)  ## Measure one learner and one publisher with 2,000 bandits on a real broker
	$(BIN)/python -m benchmarks.bandits

bench-join: $(READY)  ## Measure the join beside Kafka Streams, Flink, Quix Streams and Faust on one broker
	$(BIN)/python -m benchmarks.join

bench-join-growth: $(READY)  ## Measure how the join grows with partitions, rewards and payload
	$(BIN)/python -m benchmarks.join.growth

bench-join-memory: $(READY)  ## Measure what the join keeps in memory, and how soon it is back
	$(BIN)/python -m benchmarks.join.memory

dev: $(READY)  ## Start Kafka and S3 for development (stop: bandstand dev down)
	$(BIN)/bandstand dev up

lock: $(READY)  ## Write locks/*.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev --no-emit-package bandstand pyproject.toml -o locks/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 -c locks/dev.txt --extra drift pyproject.toml -o locks/runtime.txt
	echo 'setuptools>=80' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 -c locks/dev.txt - -o locks/build.txt
	echo 'quixstreams==3.28.1' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 - -o benchmarks/join/peers/quix.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 benchmarks/learners/peers.in -o benchmarks/learners/peers.txt

clean:  ## Remove what the commands above made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
