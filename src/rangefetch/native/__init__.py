"""The engine as a backend: turns downloads into files of the engine, and acts on what the engine reports.

A manager uses ``backend.NativeBackend``; ``task.NativeTask`` is a download that the engine fetches.
"""
