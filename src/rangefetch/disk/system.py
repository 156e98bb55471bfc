"""The operating-system layer: every name here comes from ``posix`` or from ``windows``, chosen once at import.

It covers files (opening them, positioned reads and writes, locks, replacing, naming, and who may write them), and the
few other things in which Windows differs, such as the limit on open files and starting another program. ``posix``
documents what each name promises; ``windows`` says where it differs. The rest of the package uses nothing that only one
system has: ``make lint`` checks the types for both.
"""

import sys

if sys.platform == "win32":
    from rangefetch.disk.windows import *  # noqa: F403 - that half
else:
    from rangefetch.disk.posix import *  # noqa: F403 - or that, under the same names
