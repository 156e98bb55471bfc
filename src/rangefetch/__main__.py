"""``python -m rangefetch`` is the command ``rangefetch``."""

import sys

from rangefetch.cli.main import run

sys.exit(run())
