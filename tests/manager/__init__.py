"""Tests of the download manager's promises, with real downloads from servers that misbehave."""
