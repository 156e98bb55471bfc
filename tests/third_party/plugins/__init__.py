"""Plugins by which other people's tests run on rangefetch, each in the process of its suite (``pytest -p``)."""
