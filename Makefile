# `make demo` and `make test` are all a newcomer needs; both install what is missing first (scripts/setup).
BIN := .venv/bin

.PHONY: setup check test matrix mutants demo lock clean

setup:
	@scripts/setup

check: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not lab" --ignore tests/matrix

test: check
	$(BIN)/pytest -s tests/matrix
	$(BIN)/pytest -m lab

demo: setup
	$(BIN)/python -m sterna.lab.demo

# Every single fault, 6,000 seeded pairs (STERNA_PAIRS, STERNA_SEED), 600 stories: long. `make test` plays a sample.
matrix: setup
	STERNA_MATRIX=1 STERNA_STORIES=600 $(BIN)/pytest -s tests/matrix

# Takes one safeguard at a time out of the product: the matrix must notice.
mutants: setup
	$(BIN)/python -m tests.matrix.mutants

lock:
	scripts/lock

clean:
	rm -rf .venv .cache .lab* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache out
