# Everything runs in .venv, which is created on first use; `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0
export PYTHONSAFEPATH := 1

.PHONY: help demo test test-fast test-gpu test-vllm test-vllm-fast e2e e2e-vllm check crd protos bench bench-serving bench-vllm bench-distributed bench-drafts bench-gpu bench-operator bench-judgement bench-learning figures images sbom kubectl check-workflows clean
help:
	@echo "make demo    serve, record, train, canary and promote on this machine; writes out/demo/report.html;"
	@echo "             KIND=Eagle3 with drafts of that kind"
	@echo "make test    all tests but those of a Kubernetes node and of a stock vLLM"
	@echo "make test-fast  tests without Redis, Kubernetes or slow training"
	@echo "make test-gpu  tests on a GPU, a minute"
	@echo "make test-vllm  tests with a stock vLLM, which is installed apart on first use; Linux"
	@echo "make test-vllm-fast  those without a whole deployment"
	@echo "make e2e     tests with real pods on a Kubernetes node; needs root on Linux"
	@echo "make e2e-vllm  the same with a stock vLLM in the pods"
	@echo "make check   formatting, lint, types, layering, generated code"
	@echo "make check-workflows  lint .github/workflows; needs Go"
	@echo "make bench   all benchmarks but those with a target of their own, into out/bench"
	@echo "make bench-serving  wrong requests, attacks, disconnects, overload and clients, half an hour"
	@echo "make bench-vllm  what a change of draft and the gateway cost a stock vLLM, 20 minutes"
	@echo "make bench-distributed  two ranks of the trainer over one, 4 minutes"
	@echo "make bench-drafts  draft kinds after the same requests, 15 minutes"
	@echo "make bench-operator  the operator's latency and footprint, against a real Kubernetes API server"
	@echo "make bench-judgement  promotions and rollbacks over simulated fleets, and what judging costs, 20 minutes"
	@echo "make bench-learning  how fast the draft learns, what it forgets and what that costs, half an hour"
	@echo "make figures  the README's table, from what these measured last"
	@echo "make protos  generate protos/gen"
	@echo "make crd     generate the resource definition and docs/reference.md"
	@echo "make images  build a container image for each component"
	@echo "make sbom    list the Python packages of each image, into out/sbom"
	@echo "make kubectl  kubectl aurora as one file, and its krew manifest, in out/kubectl"

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh "$(VENV)"
	@touch $@

demo: $(STAMP)
	@$(BIN)/aurora demo$(if $(KIND), --kind $(KIND))

# A worker takes whole files, so that fixtures of a module are made once. Many tests wait for a clock
# or a process: one worker more than there are processors.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PARALLEL := -n $(WORKERS) --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
# Trainers give way to serving; at the lowest priority they do not give way to other workers' tests.
NICE := nice -n 19

test: $(STAMP)
	@$(NICE) $(BIN)/pytest $(PARALLEL)

test-fast: $(STAMP)
	@$(NICE) $(BIN)/pytest $(PARALLEL) -m "not (slow or redis or cluster or node)"

# Says what is wrong with the GPU before tests that would be skipped.
test-gpu: $(STAMP)
	@$(BIN)/python -c "from aurora_model.device import usable_device; usable_device('cuda')"
	@$(BIN)/pytest -m gpu tests/gpu tests/kernels

test-vllm: $(STAMP)
	@folder=$$(PYTHON="$(PYTHON)" tools/vllm/setup.sh) && AURORA_VLLM=$$folder $(BIN)/pytest -m vllm tests/vllm

test-vllm-fast: $(STAMP)
	@folder=$$(PYTHON="$(PYTHON)" tools/vllm/setup.sh) && AURORA_VLLM=$$folder \
	    $(BIN)/pytest -m "vllm and not slow" tests/vllm

e2e: $(STAMP)
	@PYTHONPATH=tests/node $(BIN)/python -m harness.run

e2e-vllm: $(STAMP)
	@folder=$$(PYTHON="$(PYTHON)" tools/vllm/setup.sh) && AURORA_VLLM=$$folder \
	    PYTHONPATH=tests/node $(BIN)/python -m harness.run -k vllm

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/protos.py --check
	@$(BIN)/python tools/crd.py --check

check-workflows:
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

crd: $(STAMP)
	@$(BIN)/python tools/crd.py

protos: $(STAMP)
	@$(BIN)/python tools/protos.py

bench: $(STAMP)
	@for name in engine ngram states seeds swap capture buffer sizing; do \
	    echo "bench: $$name"; PYTHONPATH=.:tests/cluster $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

bench-serving: $(STAMP)
	@PYTHONPATH=.:tests/cluster $(BIN)/python -m benchmarks.serving

bench-vllm: $(STAMP)
	@folder=$$(PYTHON="$(PYTHON)" tools/vllm/setup.sh) && AURORA_VLLM=$$folder \
	    PYTHONPATH=.:tests/vllm $(BIN)/python -m benchmarks.vllm

bench-distributed: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.distributed

bench-drafts: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.drafts

bench-gpu: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.gpu

bench-operator: $(STAMP)
	@PYTHONPATH=.:tests/cluster $(BIN)/python -m benchmarks.operator

bench-judgement: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.judgement
	@PYTHONPATH=. $(BIN)/python -m benchmarks.switchback
	@PYTHONPATH=. $(BIN)/python -m benchmarks.judging

bench-learning: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.learning

figures: $(STAMP)
	@$(BIN)/python tools/figures.py

images:
	@tools/images.sh

sbom:
	@tools/images.sh --sbom

# Where the archives will be downloaded from.
URL ?= https://releases.example.com
kubectl: $(STAMP)
	@$(BIN)/python tools/kubectl_file.py --url "$(URL)"

clean:
	rm -rf $(VENV) out
