"""The download manager: each of its promises, held against real downloads from servers that misbehave."""
