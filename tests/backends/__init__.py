"""Tests of what both backends promise, of the choice between them, and of what one hands over to the other."""
