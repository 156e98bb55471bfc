"""The version, defined here for both packaging and ``--version``."""

__version__ = "0.1.0"
