# Every target does the set-up it needs; a second call finds it done.
.DEFAULT_GOAL := help
.PHONY: help setup run demo-loop browser screenshots test fast-tests test-slow test-real test-tf-serving-version test-fresh lint format lock image clean

PYTHON := .venv/bin/python
ACCELERATOR := cpu
IMAGE := mnist-tfx

help: ## what there is
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 30

setup: ## make .venv from requirements.lock
	@bash scripts/setup.sh

run: ## train, validate and push a model for Fashion-MNIST and for MNIST
	@bash scripts/setup.sh data
	@.venv/bin/mnist-tfx run --dataset all

demo-loop: ## serve, drift, label, retrain, push: the whole loop on MNIST
	@bash scripts/setup.sh data
	@$(PYTHON) -m scripts.demo_loop

browser: setup ## get a Chromium and axe-core for the browser tests into .tools/browser
	@$(PYTHON) -m scripts.browser >/dev/null || echo "browser: the browser tests will be skipped (in CI they fail)" >&2

screenshots: setup browser ## take the pictures in docs/ anew, of the runs and models in var/
	@$(PYTHON) -m scripts.screenshots

test: setup browser ## lint, types and the fast tests
	@$(MAKE) --no-print-directory --jobs 2 lint fast-tests

fast-tests:
	@$(PYTHON) -m pytest -q -m "not slow" -p tests.fixtures.warm_processes --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: setup browser ## the tests on real data
	@$(PYTHON) -m pytest -q -m "slow and not real"

test-real: setup ## the pipeline on real Kubeflow, Kubernetes and Flink parts (with Go, Java, Maven)
	@$(PYTHON) -m pytest -q -rs -m real

test-tf-serving-version: setup ## a model's answers in the TensorFlow of the pinned TF Serving
	@$(PYTHON) -m pytest -q -s -m slow tests/serving/test_tf_serving_version.py

test-fresh: ## make run and the image's steps in minimal Debian 12 and 13 roots (as root, with debootstrap)
	@python3 -B -m scripts.fresh

lint: setup ## ruff, mypy, and which package may import which
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo

format: setup ## let ruff correct what it can
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

lock: setup ## write requirements.lock anew from pyproject.toml
	@bash scripts/lock.sh

image: ## build the container image (ACCELERATOR=gpu: with CUDA; IMAGE: its name)
	@docker build --file kubeflow/Dockerfile --build-arg ACCELERATOR=$(ACCELERATOR) --tag $(IMAGE) .

clean: ## remove the environment and the tools (var/ stays)
	@rm -rf .venv .tools
