"""The command line: what was typed (``arguments``), what is shown (``display``), what is done (``main``, ``many``)."""
