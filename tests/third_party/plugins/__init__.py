"""pytest plugins that make other people's tests use rangefetch, each in the process of its suite (``pytest -p``)."""
