"""What systems differ in, in one place: each name here is that of ``posix`` or that of ``windows``, chosen once.

Files first: how they are opened, read and written at a place, locked, replaced and named, and who may write them. Then
the little else in which Windows differs: how many files may be open, and how another program is started. What a name
promises is said in ``posix``; ``windows`` says where it does otherwise. Nothing else in the package names what only
one of them has: ``make lint`` checks the types for both.
"""

import sys

if sys.platform == "win32":
    from rangefetch.disk.windows import *  # noqa: F403 - that half
else:
    from rangefetch.disk.posix import *  # noqa: F403 - or that, under the same names
