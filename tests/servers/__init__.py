"""Servers for the tests: one that misbehaves on purpose, a real nginx, certificates for both, and others."""
