"""Run one of ``readers.TARGETS`` under atheris: python tests/fuzz/run.py TARGET [ARGUMENTS OF LIBFUZZER]."""

import importlib
import logging
import sys

atheris = importlib.import_module("atheris")

if __name__ == "__main__":
    logging.disable()  # malformed input logs a warning each time
    with atheris.instrument_imports(include=["rangefetch"]):
        readers = importlib.import_module("readers")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], readers.TARGETS[sys.argv[1]])
    atheris.Fuzz()
