"""Helpers shared by tests of several folders. Servers and proxies are in ``servers``."""
