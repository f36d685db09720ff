"""Imported first by the process that workers are forked from, which then ends with its parent, even while it imports.

It would notice only after its imports, which take seconds. Linux only; elsewhere it ends then.
"""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
