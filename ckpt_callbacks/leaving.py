"""Leaving: a fit that is asked to end before it is done, by a signal or a request, ends at a boundary, all saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FrameType

from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.messages import say
from ckpt_callbacks.signals import Obey, Signals, call

__all__ = ["Leaving"]


class Leaving:
    """What an adapter asks at each boundary of a fit: is it the last one?

    Args:
        callbacks: their triggers say which signals are listened to.
        still_running: tells whether the fit is still there, and has something to save; it gets the frame that a
            signal came in.
        obey: what the framework needs for a signal to be obeyed.
    """

    def __init__(
        self,
        callbacks: Sequence[BaseCheckpointer],
        still_running: Callable[[FrameType | None], bool],
        obey: Obey = call,
    ) -> None:
        self._callbacks = callbacks
        wanted: dict[str, bool] = {}
        for callback in callbacks:
            for name, leave in callback.trigger.signals.items():
                wanted[name] = wanted.get(name, False) or leave
        self._signals = Signals(wanted, still_running, obey)
        self._answered: str | None = None  # the signal that the present boundary is told of

    def install(self) -> None:
        """The fit begins."""
        self._signals.install()

    def remove(self) -> None:
        """The fit is over, or left."""
        self._signals.remove()

    def close(self) -> None:
        """Fit has ended well, and all is durable: a signal that came after the last boundary is answered now.

        Raises:
            SystemExit, KeyboardInterrupt: as `Signals.answer`.
        """
        self._signals.remove()
        self._signals.answer()

    @property
    def insisted(self) -> bool:
        """Whether the fit was left at once, by a second signal: whoever sent it does not want to wait for anything."""
        return self._signals.insisted

    def repeat(self) -> None:
        """Fit is gone, by an exception: a signal that was noted, and never answered, comes as if it came just now."""
        self._signals.repeat()

    def answer(self) -> None:
        """The same for who may raise: obey it.

        Raises:
            SystemExit, KeyboardInterrupt: as `Signals.answer`.
        """
        if not self.insisted:
            self._signals.answer()

    def look(self) -> str | None:
        """Before a boundary: the name of the signal that came since the last one."""
        came = self._signals.came
        self._answered = came.name if came is not None else None
        return self._answered

    def after_boundary(self) -> None:
        """After it: leave, if that was asked for, once everything is durable. A program's own handler may go on.

        Raises:
            SystemExit, KeyboardInterrupt: as `Signals.answer`; exit code 0 if a request has asked for it.
            StoreError: what was saved could not be written.
        """
        stops = any(callback.stops for callback in self._callbacks)
        leaves = self._answered is not None and self._signals.leaves
        if stops or leaves:
            for callback in self._callbacks:
                callback.wait()
        if self._answered is not None:
            self._signals.answer()
        if stops:
            say("stopped on request; the same command carries on")
            raise SystemExit(0)
