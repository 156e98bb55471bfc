"""One download at work, whichever backend fetches it: its lifecycle, timers, retries, identity, verification and end.

What only one backend needs belongs to that backend.
"""
