"""Tests of the promises of both backends, of the choice between them, and of handovers from one to the other."""
