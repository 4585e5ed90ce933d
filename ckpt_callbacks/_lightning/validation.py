"""The validation loaders: made as they were, with what lives on in them from one validation to the next.

No boundary lies inside a validation, so there is no place in it. But loaders may be made of random numbers; workers
that live on were born of one, and draw more; and a data set may remember. All of that has to be as it was before the
random state is put back, or the first validation of a resumed run would draw what the first one of the run drew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckpt_callbacks._lightning import private
from ckpt_callbacks._lightning.live import NOTHING, Live
from ckpt_callbacks._torch_data.source import Source
from ckpt_callbacks.state import random_state

__all__ = ["Validation", "followed"]


class Validation:
    """The loaders of fit's validations.

    Args:
        trainer: of the fit.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._asked: Any = None  # the random state when the user was asked for the loaders
        self._asked_with: Mapping[str, Any] = NOTHING  # what had changed by then
        self._sources: Sequence[Source] = ()

    def ask(self, loaders: Callable[[], Any], circumstances: Mapping[str, Any]) -> Any:
        """Ask the user for the loaders; ``circumstances`` tells what has changed by now."""
        self._asked, self._asked_with = random_state.capture(), circumstances
        return loaders()

    def follow(self, loaders: Sequence[Any]) -> list[Any]:
        """Know these loaders from now on; give what is to be iterated for each."""
        if [id(source.loader) for source in self._sources] != [id(loader) for loader in loaders]:
            self._sources = [Source(loader) for loader in loaders]
        return [source if source.lives_on else source.loader for source in self._sources]

    def capture(self) -> dict[str, Any]:
        """How the loaders were made, and what lives on in them."""
        return {
            "asked": self._asked,
            "asked_with": dict(self._asked_with),
            "loop": private.validation_state(self._trainer),
            "sources": [source.place() if source.lives_on else None for source in self._sources],
            "values": [source.values() for source in self._sources],
            "generators": random_state.capture_generators([source.loader for source in self._sources]),
        }

    def make(self, saved: Mapping[str, Any], live: Live) -> None:
        """Ask the user for them as they were asked for; changes the random state, which is put back afterwards."""
        if saved["asked"] is not None:
            random_state.restore(saved["asked"])
            with live.asking(saved["asked_with"]):
                private.make_validation_loaders(self._trainer)
            self._asked, self._asked_with = saved["asked"], saved["asked_with"]

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Make them what they were; changes the random state, too."""
        if saved["asked"] is None:
            return
        self.follow(private.validation_loaders(self._trainer))
        for source, place, values in zip(self._sources, saved["sources"], saved["values"], strict=False):
            if place is not None:
                source.return_to({**place, "ended": True})  # the next validation begins a new iteration in any case
            source.put_back_values(values)
        random_state.restore_generators([source.loader for source in self._sources], saved["generators"])
        private.put_back_validation_state(self._trainer, saved["loop"])

    def missing(self) -> dict[str, str]:
        """What would not come back -> why, and what to do."""
        lost: dict[str, str] = {}
        for source in self._sources:
            lost |= {f"validation {what}": why for what, why in source.missing().items()} if source.lives_on else {}
            if source.is_adrift():
                lost["validation data (persistent_workers)"] = (
                    "a validation ended before its data did, and workers that draw random numbers were ahead of it: "
                    "use persistent_workers=False there, or limit_val_batches=1.0 and num_sanity_val_steps=0"
                )
        return lost


@functools.cache
def followed(combined_loader: type) -> type:
    """Make the subclass of one of Lightning's `CombinedLoader`s that iterates what `Validation.follow` gives."""

    class FollowedLoader(combined_loader):  # type: ignore[misc]
        """A `CombinedLoader` whose loaders are followed."""

        def __init__(self, iterables: Any, mode: str, validation: Validation) -> None:
            super().__init__(iterables, mode)
            self.validation = validation

        def __iter__(self) -> Any:
            private.hold_back(self, self.validation.follow(self.flattened))
            iter(self._iterator)
            return self

    return FollowedLoader
