# Every target sets itself up: Python 3.11 or 3.12 is all it needs, 3.13 to 3.15 with more (see requirements/install.sh).
BIN := .venv/bin
STUBS := .
MESSAGES := $(wildcard proto/koinon/v1/*.proto)
SERVICES := proto/koinon/v1/peer.proto proto/koinon/v1/services.proto
CODE := koinon governance mpc node testnet bench docs tests

.PHONY: demo test lint proto bench endure sim fuzz faults docs lock clean

demo: .venv/node.stamp ## four hospitals reproduce a published trial
	@$(BIN)/koinon demo

test: .venv/dev.stamp ## cheap tests first, a file at a time in two processes
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: .venv/dev.stamp ## format, rules, types, architecture, stubs
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@stubs=$$(mktemp -d) && trap 'rm -rf "$$stubs"' EXIT && $(MAKE) --no-print-directory proto STUBS="$$stubs" \
	  && { diff -r -x __pycache__ -x __init__.py "$$stubs/koinon/v1" koinon/v1 \
	       || { echo "hint: koinon/v1 differs from proto/: run make proto" >&2; exit 1; }; } \
	  && echo "Stubs match proto/."

proto: .venv/dev.stamp ## generate koinon/v1 from proto/koinon/v1
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I proto --python_out=$(STUBS) --mypy_out=quiet:$(STUBS) $(MESSAGES)
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I proto --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(SERVICES)

bench: .venv/node.stamp ## measure; prints a table, writes bench/latest.json
	@$(BIN)/python -m bench.run

endure: .venv/node.stamp ## memory over ten minutes of load, cost up to a million transactions: make endure MINUTES=10
	@$(BIN)/python -m bench.endurance --minutes $(or $(MINUTES),10)

sim: .venv/dev.stamp ## the ledger under faults and attacks: make sim SEEDS=1000 JOBS=2
	@$(BIN)/python -m testnet.simulation --seeds $(or $(SEEDS),200) --first-seed $(or $(FIRST_SEED),0) --jobs $(or $(JOBS),1)

mutants: .venv/dev.stamp ## break one rule at a time: the simulation must notice each
	@$(BIN)/python -m testnet.simulation.mutants --seeds $(or $(SEEDS),400)

fuzz: .venv/dev.stamp ## decoders and engine under libFuzzer: make fuzz SECONDS=600 TARGET=sql
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGET)

faults: .venv/node.stamp ## real nodes under kill -9: make faults KILLS=200 [LAN=1]
	@$(BIN)/python -m testnet.faults --kills $(or $(KILLS),20) --nodes $(or $(NODES),4) --seed $(or $(SEED),0) $(if $(LAN),--lan)

docs: .venv/dev.stamp ## write the pages that are made from the code
	@$(BIN)/python docs/generate.py

lock: ## pin requirements/ anew (needs uv)
	@cd requirements && sh lock.sh

clean: ## remove everything made here
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/latest.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/dev.stamp: requirements/schemas.txt
.venv/%.stamp: requirements/%.txt requirements/install.sh pyproject.toml
	@sh requirements/install.sh $*
