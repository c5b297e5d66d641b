"""Makes Ctrl-C, SIGTERM and a closed terminal stop a run within seconds, whatever code is running."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

GRACE_SECONDS = 5.0
EXIT_CODE = 130  # also for SIGTERM: to the user both are "stopped"


class StopSignals:
    """While entered, turns SIGINT, SIGTERM and SIGHUP into one KeyboardInterrupt in the main thread.

    That exception is not to be relied upon alone. Beam turns it into a RuntimeError (it rebuilds exceptions to name the
    step), TensorFlow loses it in callbacks, and a long C++ call keeps Python from raising it at all. So `requested`
    tells afterwards what really happened, and a thread ends the process if it is still inside after the grace time.
    """

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        """`on_stuck` is called from another thread, right before the process is ended."""
        self.requested = False
        self._on_stuck = on_stuck
        self._left = threading.Event()
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread receives signals; whoever runs us in another one handles them
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup and `&` in scripts ignore some: respected
                self._before[number] = signal.signal(number, self._handle)
        if not self._before:
            return self
        # The wake-up descriptor is written by the C handler at once, even while the main thread is in C++ code.
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._read_end,), daemon=True, name="stop-signals").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._before:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._write_end)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:  # a second Ctrl-C must not cut the clean-up short
            self.requested = True
            raise KeyboardInterrupt

    def _watch(self, read_end: int) -> None:
        try:
            while received := os.read(read_end, 16):
                if any(number in self._before for number in received):
                    break
        finally:
            os.close(read_end)
        if received and not self._left.wait(GRACE_SECONDS):
            try:
                self._on_stuck()
            finally:
                os._exit(EXIT_CODE)
