"""Tests at random or at every point: failing system calls, kills, operations at any moment."""
