"""``python -m rangefetch`` is the command ``rangefetch``."""

from rangefetch.cli.main import main

main()
