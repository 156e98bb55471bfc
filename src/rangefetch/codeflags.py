"""The flags of code objects, copied from ``inspect`` (Python Library Reference, "Code Objects Bit Flags").

The engine's start-up code, which Cython generates, is changed to read them here (setup.py), because importing
``inspect`` takes ten milliseconds, a tenth of the time that fetching a small file took.
"""

CO_OPTIMIZED = 0x1
CO_NEWLOCALS = 0x2
CO_VARARGS = 0x4
CO_VARKEYWORDS = 0x8
CO_GENERATOR = 0x20
CO_COROUTINE = 0x80
CO_ASYNC_GENERATOR = 0x200
