# Everything sets itself up in .venv; nothing but python3 and make is needed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PACKAGE := $(VENV)/.package
PAGE := $(VENV)/.page
STAMP := $(VENV)/.installed
FUZZER := $(VENV)/.fuzzer
SOAKS := soak-responder soak-training soak-examples soak-fuzz soak-serving
VOICES := styletts2==0.1.6 kokoro==0.9.4

.PHONY: help install talk demo test soak $(SOAKS) lint bench bench-scaling clean
help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(PACKAGE): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[espeak,asr]'
	@touch $@

$(STAMP): $(PACKAGE)
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@# Their own pins go with nothing here; what their models need is among the extras.
	$(RUN)/pip install --quiet --disable-pip-version-check --no-deps $(VOICES)
	@touch $@

$(FUZZER): $(STAMP)
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@touch $@

install: $(STAMP)  ## Set up .venv with the package, editable, and what its tests need

$(PAGE): $(PACKAGE)
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

talk: $(PAGE)  ## Serve a page to talk to the small model, at http://127.0.0.1:7860
	$(RUN)/es4r demo

demo: $(PACKAGE)  ## Speak a corpus, train on it, answer held-out dialogues, write results/demo/report.html
	$(RUN)/python recipes/AffectProbe/demo.py

test: $(STAMP)  ## Every test, in two processes; TESTS="tests/unit" for some of them
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadfile $(TESTS)

soak: $(SOAKS)  ## The long forms of docs/reliability.md; make -j2 soak runs two at a time, and took 70 minutes
	@echo "What was found is in results/soak and results/fuzz."

soak-responder: $(FUZZER)
	mkdir -p results/soak
	ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 OMP_NUM_THREADS=1 $(RUN)/python benchmarks/soak_responder.py > results/soak/responder.json

soak-training: $(FUZZER)
	$(RUN)/python benchmarks/soak_training.py --kills 20 --output results/soak

soak-examples: $(FUZZER)
	MUTATIONS=30000 ES4R_SOAK=1 OMP_NUM_THREADS=1 $(RUN)/python -m pytest --timeout=7200 --junitxml=results/soak/examples.xml \
		tests/integration/test_bad_corpus.py tests/property/test_audio_border.py tests/property/test_manifest_readers.py \
		tests/property/test_prompt_injection.py tests/property/test_yaml_allowlist.py tests/contracts/test_trust_mutations.py \
		tests/contracts/test_checkpoint_convert.py \
		tests/fuzz

soak-fuzz: $(FUZZER)
	for target in audio manifest prompt yaml; do \
		OMP_NUM_THREADS=1 $(RUN)/python tests/fuzz/fuzz_$$target.py -max_total_time=900 || exit 1; done

soak-serving: $(FUZZER)
	mkdir -p results/soak
	OMP_NUM_THREADS=1 $(RUN)/python benchmarks/serving.py > results/soak/serving.json

lint: $(STAMP)  ## Style and errors, without changing anything
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

bench: $(STAMP)  ## Time the pipeline on es4r-base with one thread, and print JSON; BENCH="--precision bf16"
	@OMP_NUM_THREADS=1 $(RUN)/python benchmarks/pipeline.py $(BENCH)

bench-scaling: $(STAMP)  ## Plot time and memory against turns and seconds: results/scaling/
	@OMP_NUM_THREADS=1 $(RUN)/python benchmarks/scaling.py $(BENCH)

clean:  ## Remove results and the environment
	rm -rf $(VENV) results build dist *.egg-info
