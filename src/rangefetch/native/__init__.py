"""The engine as a backend: how a download becomes a file of the engine, and what follows from what the engine reports.

``backend.NativeBackend`` is what a manager uses, and ``task.NativeTask`` a download that the engine fetches.
"""
