"""The command line: parsing (``arguments``), output (``display``), and fetching (``main``, ``many``)."""
