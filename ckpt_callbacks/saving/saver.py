"""The saver: copies a state aside, beside training where that costs it less, and queues what makes it durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

from ckpt_callbacks.engine import Event, Moment
from ckpt_callbacks.errors import InexactError
from ckpt_callbacks.messages import say, warn
from ckpt_callbacks.run import Snapshot
from ckpt_callbacks.saving.garbage import no_search
from ckpt_callbacks.saving.keeper import Keeper
from ckpt_callbacks.saving.overlap import Overlap
from ckpt_callbacks.saving.requests import Request, Requests
from ckpt_callbacks.saving.writer import Writer
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.state.files.packing import Packed, Packer, Staged
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.copying import Copier, Copying
from ckpt_callbacks.state.tensors.devices import pin
from ckpt_callbacks.store import Manifest

__all__ = ["Content", "Saver"]

Content = Literal["full", "weights"]


@dataclass(frozen=True)
class _Taken:
    """A state of a boundary that only waits to be committed.

    Attributes:
        draft: its manifest, but for what only the commit knows.
        staged: its files.
        trained: the names of the weights that are trained.
        healthy: it is worth nothing if its weights are no numbers.
    """

    draft: Manifest
    staged: Staged
    trained: Set[str]
    healthy: bool = False


@dataclass(frozen=True)
class _Staging:
    """A snapshot that is copied beside training: why it was taken, and who waits for it."""

    copying: Copying
    reasons: tuple[str, ...]
    waiting: list[Request]


class Saver:
    """From a captured state to a commit, of one checkpointer.

    Every method is for the thread that trains, but for `wait`.

    Args:
        keeper: commits.
        requests: who waits for a snapshot.
        background, content, exact, on_error: as in `BaseCheckpointer`.

    Attributes:
        missing: what a resume from the snapshots of this fit will lack -> why.
        lost: the drafts of saves that came to nothing: what was measured there is on no disk, or worth nothing. Whoever
            heeds them takes them out.
        owed: why a snapshot must be taken at the next boundary: its copy was torn.
    """

    def __init__(
        self,
        keeper: Keeper,
        requests: Requests,
        *,
        background: bool = True,
        content: Content = "full",
        exact: Literal["warn", "require"] = "warn",
        on_error: Literal["raise", "warn"] = "raise",
    ) -> None:
        self.content, self.exact, self.on_error = content, exact, on_error
        self._keeper, self._requests = keeper, requests
        self._writer, self._arena, self._copier = Writer(background), Arena(pin), Copier()
        self._reset()

    def _reset(self) -> None:
        self.missing: dict[str, str] = {}
        self.owed: tuple[str, ...] = ()
        self.lost: list[Manifest] = []
        self._unseen: list[tuple[Future[Any], Manifest]] = []
        self._packer, self._overlap, self._torn = Packer(), Overlap(), False
        self._staging: _Staging | None = None  # what may still be copied beside training
        self._held: _Taken | None = None  # what is committed only if training fails before the next one is taken
        self._saved_at: float | None = None  # on the monotonic clock: the last boundary, if it saved
        self._trains = threading.get_ident()  # the thread that trains

    def begin(self) -> None:
        """A fit begins: an earlier one that died of an exception may still be writing, and is not asked any more."""
        self.fence()
        self.let_go()
        self._writer.wait()
        self._reset()

    def warm(self, nbytes: int) -> None:
        """Make memory ready for snapshots of about this size, in the background: memory that is new takes time."""
        if self._writer.background and self.content == "full":
            self._copier.begin(lambda: self._arena.warm(nbytes))

    @property
    def unseen(self) -> bool:
        """Whether there are saves whose outcome `raise_failed` did not see."""
        return bool(self._unseen)

    def under_way(self) -> list[Manifest]:
        """The drafts of saves whose outcome is not known yet."""
        return [draft for done, draft in self._unseen if not done.done()]

    @property
    def busy(self) -> bool:
        """Whether a snapshot is still being written."""
        return self._writer.busy

    def pack(self, captured: Captured) -> Packed:
        """Lay the state out as files; name what resume will lack, or refuse, as ``exact`` says.

        Raises:
            InexactError: with ``exact="require"``.
        """
        rest = captured.rest if self.content == "full" else None
        packed = self._packer.pack(
            captured.weights,
            rest,
            optional=captured.optional,
            missing=captured.missing,
            frozen=captured.frozen,
        )
        if rest is not None:
            self._name_missing(packed.missing)
        return packed

    def _name_missing(self, missing: Mapping[str, str]) -> None:
        if missing and self.exact == "require":
            raise InexactError(dict(missing))
        for path in missing.keys() - self.missing.keys():
            warn(f"not captured, and a resume will lack it: {path} ({missing[path]})")
        self.missing.update(missing)

    def reached(self, now: float) -> None:
        """The next boundary, at this time on the monotonic clock: nothing may be copied any more."""
        self.fence()
        if self._saved_at is not None:
            self._overlap.took(now - self._saved_at)
            self._saved_at = None

    @no_search()
    def save(
        self,
        draft: Manifest,
        capture: Callable[[], Captured],
        moment: Moment,
        now: float,
        waiting: list[Request],
    ) -> Future[Any]:
        """Copy the state aside and queue its commit.

        Args:
            draft: its manifest, but for what only the commit knows.
            capture: gives the state of ``moment``.
            now: when the boundary was reached, on the monotonic clock.
            waiting: whoever requested a snapshot is answered with it.

        Returns:
            A future of the `Snapshot`; of None if the copy was torn, and another is owed.
        """
        at_once = any(request.stop for request in waiting)
        self.let_go()
        try:
            captured = capture()
            packed = self.pack(captured)
            self._writer.make_room()
            steady = self._may_be_copied_later(moment, captured, self._overlap.pays) if not at_once else {}
            self._saved_at = now
            taken = self._take(draft, captured, packed, steady, waiting)
            done = self._writer.submit(lambda: self._commit(taken))
        except BaseException as error:
            self._staging = None
            for request in waiting:
                request.answer(error)
            raise
        done.add_done_callback(lambda finished: _settle(finished, waiting))
        self._unseen.append((done, draft))
        return done

    @no_search()
    def hold(self, draft: Manifest, capture: Callable[[], Captured], moment: Moment) -> int:
        """Copy the state aside, for `save_held`, in the place of what was held before. Arguments as of `save`.

        Returns:
            How many bytes that were.
        """
        self.let_go()
        captured = capture()
        packed = self.pack(captured)
        steady = self._may_be_copied_later(moment, captured, self._overlap.is_free)
        self._held = replace(self._take(draft, captured, packed, steady, []), healthy=True)
        return sum(part.nbytes for part in self._held.staged.parts.values())

    def let_go(self) -> None:
        """Give the memory back of what is held: there is something newer, or training has ended well."""
        held, self._held = self._held, None
        if held is not None:
            self.fence()  # it may still be copied there
            held.staged.release()

    def save_held(self) -> Future[Any] | None:
        """Training failed: queue the commit of what is held, if there is anything. From any thread.

        Returns:
            A future of the `Snapshot`, of None if its weights are no numbers; or None.
        """
        self.fence()
        held, self._held = self._held, None
        if held is None:
            return None
        done = self._writer.submit(lambda: self._commit(held))
        self._unseen.append((done, held.draft))
        return done

    def _take(
        self,
        draft: Manifest,
        captured: Captured,
        packed: Packed,
        steady: Mapping[int, Any],
        waiting: list[Request],
    ) -> _Taken:
        """Copy what was laid out to where training can't change it, or begin to, for what is steady."""
        staged = packed.stage(self._arena, steady)
        if staged.copying.unfinished:
            self._copier.begin(staged.copying.work)
            self._staging = _Staging(staged.copying, draft.reasons, waiting)
        return _Taken(draft, staged, captured.watched)

    def _may_be_copied_later(self, moment: Moment, captured: Captured, pays: Callable[[], bool]) -> Mapping[int, Any]:
        """The tensors that are copied beside training: none, if the state could not be taken as well a batch later.

        That is so where something happened or was measured, such as the best value yet. A request can wait.
        """
        plain = moment.events in (Event.NONE, Event.MANUAL) and not moment.metrics
        possible = plain and self._writer.background and not self._torn
        steady = captured.steady() if possible else {}
        return steady if steady and pays() else {}

    def _commit(self, taken: _Taken) -> Snapshot | None:
        """On the writer's thread. None: training changed what was being copied, or it is worth nothing."""
        draft, staged, trained = taken.draft, taken.staged, taken.trained
        try:
            if not staged.copying.verdict():
                return None
            weight = staged.not_finite(trained)
            if weight and taken.healthy:
                return None
            unhealthy = f"{weight} is not finite" if weight else draft.unhealthy
            manifest = self._keeper.publish(
                replace(draft, unhealthy=unhealthy), staged.files(), lambda earlier: staged.same_as(earlier, trained)
            )
            staged.learn()
        finally:
            staged.release()
        return self._keeper.tidy(manifest)

    def fence(self) -> None:
        """Return when none of training's tensors is being copied any more: it may change them now.

        A copy of tensors that were changed all the same is discarded, and another is owed.
        """
        staging = self._staging
        if staging is None:
            return
        whole = staging.copying.conclude()
        self._staging = None  # not before: Ctrl-C may end the wait
        if whole:
            return
        self._torn = True
        if self._held is not None and self._held.staged.copying is staging.copying:
            self.let_go()
            return
        self.owed = staging.reasons
        self._requests.put_back(staging.waiting)
        say("weights changed while they were copied: that copy is discarded, and others are made at once")
        self._keeper.tore(staging.reasons)

    def take_owed(self) -> tuple[str, ...]:
        """Why a snapshot is owed; the next one will be it."""
        owed, self.owed = self.owed, ()
        return owed

    def wait(self) -> None:
        """Return when every snapshot taken so far is durable, or failed."""
        if threading.get_ident() == self._trains:  # nobody else can tell whether a copy is whole
            self.fence()
        self._writer.wait()

    def raise_failed(self) -> None:
        """Let the failure of an earlier save be seen here, once: an exception or a warning, as ``on_error`` says."""
        finished = [(future, draft) for future, draft in self._unseen if future.done()]
        self._unseen = [(future, draft) for future, draft in self._unseen if not future.done()]
        self.lost += [draft for future, draft in finished if _is_lost(future, draft)]
        errors = [error for error in (future.exception() for future, _ in finished) if error is not None]
        if errors and self.on_error == "raise":
            for further in errors[1:]:
                warn(f"a further save failed: {further}")
            raise errors[0]
        for error in errors:
            warn(f"a save failed, training goes on and the next trigger tries again: {error}")

    def end(self) -> None:
        """Make everything durable and give all memory and threads back. A saver may be used again."""
        try:
            self.let_go()
            self.fence()
            self._arena.clear()
            self._copier.close()
            self._writer.close()
        finally:
            self._arena.clear()


def _is_lost(finished: Future[Any], draft: Manifest) -> bool:
    """Whether a save failed, or its weights turned out to be no numbers."""
    if finished.exception() is not None:
        return True
    snapshot = finished.result()
    return snapshot is not None and snapshot.manifest.unhealthy is not None and draft.unhealthy is None


def _settle(finished: Future[Any], waiting: list[Request]) -> None:
    """Hand the outcome of a commit to everyone who asked for that snapshot, unless it is taken once more."""
    outcome = finished.exception() or finished.result()
    for request in waiting if outcome is not None else ():
        request.answer(outcome)
