"""A process whose wall clock can be set while it runs, by a library that its C library calls."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("AURORA_CLOCK");
  int file = path ? open(path, O_RDONLY) : -1;
  void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  ahead = found == MAP_FAILED ? 0 : found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (!result && clock == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec found;
  int result = clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return result;
}

time_t time(time_t *now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now) *now = found.tv_sec;
  return found.tv_sec;
}
"""


class WallClock:
    """The clock of the processes that run in `environment`; needs a C compiler and glibc."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise RuntimeError("no C compiler: clock jumps need `cc` on PATH")
        source, library, ahead = (folder / f"clock.{end}" for end in ("c", "so", "ahead"))
        source.write_text(_SOURCE)
        flags = ("-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl")
        subprocess.run([compiler, *flags], check=True)
        ahead.write_bytes(struct.pack("l", 0))
        with ahead.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "AURORA_CLOCK": str(ahead),
        }

    def jump(self, ahead_seconds: int) -> None:
        """Sets the clock so far before the machine's."""
        self._ahead[:] = struct.pack("l", ahead_seconds)
