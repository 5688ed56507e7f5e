"""Keep freed memory in the process: training small models otherwise pays for page faults at every step.

glibc hands large blocks back to the kernel at every free, and each training step asks for the same
blocks again.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
LARGEST_BLOCK = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc to reuse blocks up to 1 GiB; True if it took effect, False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    kept = library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    untrimmed = library.mallopt(M_TRIM_THRESHOLD, LARGEST_BLOCK)
    return bool(kept and untrimmed)
