"""Makes ``python -m rangefetch`` run the ``rangefetch`` command."""

from rangefetch.cli.main import main

main()
