"""Other people's suites and servers (``make third-party``): fetched or installed when run, never copied in."""
