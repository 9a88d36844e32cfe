# Two commands on a machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test oldest huge fuzz faults flips soak shake package manual lint format bench clean

demo: .venv/installed
	@$(BIN)/imagebind demo

test: .venv/developing lint
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The core tests on the lowest version of everything that pyproject.toml allows; `make test` has the newest.
OLDEST := build/oldest
CORE := test_layers test_model weights/test_checkpoint encoders/test_golden test_pipeline test_int8 media/test_audio media/test_video encoders/test_depth encoders/test_thermal media/test_imu sources/test_inputs store/test_writing store/test_reading cli/test_embed corpus/test_resume training/test_step training/test_loss training/test_start

oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --resolution lowest-direct --python $(OLDEST)/bin/python --editable '.[dev]'
	$(OLDEST)/bin/imagebind doctor
	$(OLDEST)/bin/python -W default -m pytest -o filterwarnings=default $(CORE:%=tests/%.py)

# Every input by the command line, on weights of the published size made by rule: 4.8 GB in build/, before every release.
huge: .venv/developing
	$(BIN)/python -m benchmarks.published_size

# Damaged inputs of every kind, a quarter of an hour; what breaks a rule is kept in build/findings.
fuzz: .venv/developing
	$(BIN)/python -m reliability.fuzz --seconds 900

# Every command that writes, killed, out of disk (as root), with a write or fsync that fails, limited in size, and then run again.
faults: .venv/developing
	$(BIN)/python -m reliability.faults

# Single bits of weights, stores, prepared samples and run folders, flipped; which command reports each.
flips: .venv/developing
	$(BIN)/python -m reliability.flips

# A million sentences and 100,000 files: memory and rate along the way.
soak: .venv/developing
	$(BIN)/python -m reliability.soak

# Some of each campaign, three minutes, as CI runs it.
shake: .venv/developing
	$(BIN)/python -m reliability.fuzz --seconds 30
	$(BIN)/python -m reliability.faults --seconds 30 --kills 21 --full 21 --errors 21 --writes 21 --limits 21
	$(BIN)/python -m reliability.soak --seconds 30
	$(BIN)/python -m reliability.flips --seconds 30 --flips 110

# Wheels and sdists, checked; the wheel alone runs the demo in an empty folder. Its environment borrows the installed dependencies.
WHEEL := build/wheel
package: .venv/developing
	rm -rf dist $(WHEEL)
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist compat
	$(BIN)/python -m build --outdir dist llm-imagebind
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv $(WHEEL)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(WHEEL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth
	$(WHEEL)/bin/python -m pip install --quiet --no-deps dist/*.whl
	mkdir $(WHEEL)/empty && cd $(WHEEL)/empty && ../bin/imagebind-cli demo > demo.txt && tail -n 3 demo.txt && test -s imagebind-demo.html
	cd $(WHEEL)/empty && ../bin/python -W error -c 'import imagebind'

# The documentation as a site, with a page for each command, and man pages.
manual: .venv/developing
	$(BIN)/python -m mkdocs build --strict --quiet -f manual/mkdocs.yml
	$(BIN)/python -m manual.commands build/man

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/developing
	$(BIN)/python -m benchmarks.exactness --huge
	$(BIN)/python -m benchmarks.help_text
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.encoders
	$(BIN)/python -m benchmarks.files
	$(BIN)/python -m benchmarks.whole
	$(BIN)/python -m benchmarks.audio_front_end
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.checksums
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.kills

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# With what the tests and the programs for developers need: Ray, databases, other libraries to compare with.
.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
