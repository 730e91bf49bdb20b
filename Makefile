# Everything here works on a bare machine with Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWEEP ?= first_look
# Further overrides for every run: make study ARGS="run.tokens=100_000 model=micro"
ARGS ?=
# What to measure, and how: make bench BENCH_ARGS="--only layer step --rounds 5"
BENCH_ARGS ?=
# The build of PyTorch is by default the one of the package index. On Linux without a GPU the CPU build is much
# smaller: set TORCH_INDEX to the address of its index, which pytorch.org names under "Get Started".
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# The tests start hundreds of processes, which need not compile the same files again and again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
.DEFAULT_GOAL := help
.PHONY: help study data sweep experts plots report results test test-all simulations slurm slurm-stop check bench bench-gpu clean clean-all

help: ## Show this help
	@echo "moe_study. Usage: make TARGET [SWEEP=first_look] [ARGS=...] [PYTHON=python3]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

study: data sweep experts plots report ## Set up, fetch the data, train sweeps/first_look.yaml, draw: the first study, end to end
	@cat plots/experts.txt
	@echo "Runs (configuration, curves, results, checkpoints) are in runs/, pictures and the table in plots/; open plots/report.html in a browser."

data: $(VENV)/installed ## Fetch and tokenize what SWEEP reads
	$(BIN)/moe-study prepare +sweep=$(SWEEP) $(ARGS)

sweep: data ## Train the runs of SWEEP that are missing
	$(BIN)/python train.py -m +sweep=$(SWEEP) $(ARGS)

experts: $(VENV)/installed ## Look for half a minute at what the experts of SWEEP attend to: plots/experts.txt
	@mkdir -p plots
	$(BIN)/moe-study specialise --sweep $(SWEEP) --brief > plots/experts.txt

plots: $(VENV)/installed ## Draw the finished runs of SWEEP and print the perplexity table
	$(BIN)/moe-study plots --sweep $(SWEEP) --out plots

report: $(VENV)/installed ## Write the finished runs of SWEEP, and what was found of their experts, as one page: plots/report.html
	$(BIN)/moe-study report --sweep $(SWEEP) --out plots/report.html

results: $(VENV)/installed ## Write results/ anew from the finished sweeps of runs/: tables, verdicts, pictures, overview
	$(BIN)/moe-study results

test: $(VENV)/installed-test ## Run the tests but those marked long (some minutes on two cores)
	$(PYTEST) -m "not long and not slurm and not simulation"

test-all: test ## Run the tests that CI runs: those marked long (whole sweeps, compilers), slurm and simulation, too
	$(PYTEST) -m "long or slurm or simulation"

simulations: $(VENV)/installed-test ## Simulate false positives and coverage over thousands of cases (ten minutes of two cores)
	$(PYTEST) -m simulation

slurm: ## Start a private SLURM on this machine, to try hydra/launcher=slurm with
	$(PYTHON) -m tests.slurm.cluster start

slurm-stop: ## End it, with all of its jobs
	$(PYTHON) -m tests.slurm.cluster stop

check: $(VENV)/installed-check ## Lint and check types
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed-peers ## Measure against dense twins and peers on this CPU (about 40 minutes; resumes where it stopped)
	$(BIN)/python -m bench.everything $(BENCH_ARGS)

bench-gpu: $(VENV)/installed-peers ## Check and measure on this machine's GPU (at most 10 minutes a call; resumes where it stopped)
	$(BIN)/python -m bench.gpu $(BENCH_ARGS)

clean: ## Remove what tools leave behind; data, runs, plots and the environment stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## Remove the environment, too; data, runs and plots stay
	rm -rf $(VENV)

# Each stamp is older than what it was made from exactly when something has to be installed again.
$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/python
	@echo "Installing the pinned dependencies into $(VENV) (some minutes the first time)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(PIP_INSTALL) -e '.[$*]'
	@touch $@
