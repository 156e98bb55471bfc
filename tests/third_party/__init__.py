"""Other people's test suites and servers (``make third-party``): fetched or installed when run, never copied here."""
