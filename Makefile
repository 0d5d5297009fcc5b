# `make demo` and `make test` are all a newcomer needs; both install what is missing first (scripts/setup).
BIN := .venv/bin

.PHONY: setup check test demo lock clean

setup:
	@scripts/setup

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadgroup -m "not lab"

test: check
	$(BIN)/pytest -m lab

demo: setup
	$(BIN)/python -m sterna.lab.demo

lock:
	scripts/lock

clean:
	rm -rf .venv .cache .lab .lab-test .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache out
