"""One `Trainer.fit`, as all our callbacks in that trainer share it: its tape, its events, and the snapshot put back.

The clean boundary is the instant before the next batch is fetched, or the end of fit: by then the module's own hooks,
validation and every scheduler have had their say on the batch before, and no random number was drawn for the next. What
happened since the last boundary (a validation, an epoch's end) is collected in between.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import FrameType
from typing import Any

from ckpt_callbacks import together
from ckpt_callbacks._lightning import private, snapshot_io, state
from ckpt_callbacks._lightning.live import NOTHING, Live, put_back_groups
from ckpt_callbacks._lightning.loader import Tape, recording
from ckpt_callbacks._lightning.losses import Losses, loss_of
from ckpt_callbacks._lightning.steadiness import Fences
from ckpt_callbacks._lightning.validation import Validation, followed
from ckpt_callbacks._lightning.weights import modules_of
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event
from ckpt_callbacks.leaving import Leaving
from ckpt_callbacks.messages import say, warn
from ckpt_callbacks.resume import Restored
from ckpt_callbacks.signals import Handler, exit_code, passing_on
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import without_secret
from ckpt_callbacks.torch import load_weights

__all__ = ["Fit"]


class Fit:
    """Leads one fit to the snapshot's place, and shows every boundary to each callback.

    Args:
        trainer: about to fit.
        package: the root of its modules, ``pytorch_lightning`` or ``lightning.pytorch``.
        callbacks: all of ours in the trainer; the first one's hooks drive this object.
    """

    def __init__(self, trainer: Any, package: str, callbacks: Sequence[BaseCheckpointer]) -> None:
        self.trainer, self.callbacks = trainer, callbacks
        self.tape = Tape(functools.partial(private.prefetches, trainer), self.before_fetch, self._on_the_way)
        self.validation = Validation(trainer)
        self._package = package
        self._training = False
        self._saves = False  # whether a signal can wait: there is a boundary to come, or something is being written
        self.fetches_itself = False  # the module gets the loader's iterator
        self._module: Any = None  # the trainer's, once training starts
        self._sized = False  # whether the callbacks know how large a snapshot will be
        self._fenced = True  # whether nothing can be under way that `fence` waits for
        self._fences = Fences(self.fence)
        self._losses = Losses([callback.stepped for callback in callbacks])
        self._live: Live | None = None
        self._modules: set[str] = set()  # when weights are loaded, or could be
        self._quiet = ExitStack()  # what is silenced until the snapshot is back in its place
        self._events = Event.NONE
        self._metrics: dict[str, Any] = {}
        self._restored: tuple[BaseCheckpointer, Restored] | None = None
        self._loaded: dict[str, Any] = {}  # what Lightning restored itself from, after the user's hooks changed it
        self._leaving = Leaving(callbacks, lambda _: self._saves and self._restored is None, self._obey)
        private.intercept_loaders(trainer, self._record, self._follow)
        private.intercept_resume(trainer, self._choose_path, self._loading)

    # Resume --------------------------------------------------------------------------------------------------------

    def _choose_path(self, path: str | Path | None) -> Any:
        """What `Trainer.fit` loads: a snapshot of ours or one that the user named, else what the user named."""
        self._modules = modules_of(self.trainer)
        named = path if path is not None and snapshot_io.names_snapshot(path) else None
        versions = {name: importlib.metadata.version(name) for name in (self._package.split(".")[0], "torch")}
        self._restored = together.begin(self.callbacks, versions, state.devices(self.trainer), load=named)
        if self._restored is None:
            return path
        _, restored = self._restored
        if path is not None and named is None:
            say(f"{without_secret(str(path))} was loaded when this run began; it carries on with its own snapshots now")
        private.intercept_restoring(self.trainer, self._loading)
        with restored.placing():
            self.tape.pend(restored.rest["tape"], restored.placing)
            self.trainer.should_stop = restored.is_over(restored.rest["trainer"]["should_stop"])
        return restored.snapshot.path

    def _loading(self) -> AbstractContextManager[None]:
        """Around what reads or puts back the chosen snapshot, if there is one."""
        if self._restored is None:
            return nullcontext()
        owner, restored = self._restored
        return owner.loading(restored)

    def _on_the_way(self) -> AbstractContextManager[None]:
        """While batches are drawn again: Lightning only notes SIGTERM, and would look when that is done."""
        return passing_on(SIGTERM, self._obey)

    def load(self, path: str | Path) -> dict[str, Any]:
        """What Lightning's reader gets for the path that `Trainer.fit` was led to."""
        if self._restored is not None and Path(path) == self._restored[1].snapshot.path:
            with self._loading():
                self._loaded = state.to_checkpoint(self._restored[1], self.trainer.lightning_module, self._modules)
            return self._loaded
        return state.for_evaluation(self.callbacks[0].read(path), self.trainer.lightning_module)

    def put_back(self, *places: state.Where, complete: bool = False) -> bool:
        """Put the chosen snapshot back if it was captured at one of these places; tell whether it was."""
        if self._restored is None or self._restored[1].where not in places:
            return False
        (owner, restored), self._restored = self._restored, None
        loaded, self._loaded = self._loaded, {}
        self._quiet.close()
        with owner.loading(restored):
            state.put_back(self.trainer, self.tape, self.validation, self.live, restored, loaded)
        self._metrics = dict(self.trainer.callback_metrics)
        together.resumed_at(
            self.callbacks,
            owner,
            restored,
            complete=complete,
            skipped=self.tape.skipped,
            replayed=self.tape.replayed,
            seconds=self.tape.seconds,
        )
        return True

    @property
    def live(self) -> Live:
        """What the fit's objects were when training began: noted when first asked for."""
        if self._live is None:
            self._live = Live(self.trainer, self._modules)
        return self._live

    def prepare(self) -> None:
        """Lightning is about to load the optimizers: give them the groups that a snapshot has."""
        if self._restored is not None:
            with self._loading():
                put_back_groups(self.trainer, self._restored[1].rest["live"]["groups"])

    # Boundaries ----------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Lightning has installed its handlers: ours stand before them, also in workers that are forked from now on."""
        self._leaving.install()

    def start(self) -> None:
        """Training is about to start: try to store the state."""
        self.listen()
        self.live.settle()
        self.fetches_itself, self._module = private.hands_out_iterator(self.trainer), self.trainer.lightning_module
        for callback in self.callbacks:
            callback.rehearse(self._capture("between epochs"))
            callback.watch(self.trainer.enable_validation)
        private.intercept_first_epoch(self.trainer, self._first_epoch)
        private.intercept_end(self.trainer, self.end)

    def _first_epoch(self) -> None:
        """Every `on_train_start` has run: put back what the epoch's hooks must see."""
        self.live.settle()
        self.put_back("between epochs")
        if self._restored is not None:
            self._quiet.enter_context(private.loader_trusted())
        self._training = self._saves = True

    def before_fetch(self) -> None:
        """The boundary. Before training starts, Lightning may fetch a batch ahead: that is none."""
        if not self._training or self.fetches_itself:
            return
        # A flag would be asked for its truth by a function of Python's; this is a step's own time.
        if self._restored is None and self._events is Event.NONE and self._leaving.look() is None:
            step, batches = private.counts(self.trainer, self._module)
            if together.rest(self.callbacks, step, batches):
                return  # as most often: a step costs nothing more
        self._between_batches()

    def before_step(self) -> None:
        """The boundary of a module that fetches for itself: its fetches lie within a batch."""
        if self._training:
            self.tape.to_place()
            self._between_batches()

    def after_step(self, outputs: Any) -> None:
        """A batch was trained on: its loss goes to the trace."""
        if not self._fenced:
            self.fence()
        if self._training:
            if not self._sized:
                self._expect()
            step, batches = private.counts(self.trainer, self._module)
            self._losses.note(batches + 1, step, loss_of(outputs, self._module))

    def _expect(self) -> None:
        """Tell the callbacks how large a snapshot will be, once the optimizers have stepped and made their moments."""
        if self.trainer.global_step:
            self._sized = True
            for callback in self.callbacks:
                callback.expect(state.size(self.trainer))

    def note(self, event: Event) -> None:
        """Something happened that the next boundary's triggers must know."""
        self._events |= event

    def end(self) -> None:
        """The last boundary."""
        self.note(Event.FIT_END)
        self._observe("between epochs")
        self._training = False

    def restore_best(self) -> None:
        """Training has ended, and every callback has had its say."""
        self.fence()
        for callback in self.callbacks:
            callback.put_best_back(lambda path: load_weights(self.trainer.lightning_module, path))

    def complete(self) -> None:
        """Fit ends. A run that was already complete never started to train: its last state is put back here."""
        if self.put_back("between epochs", "between batches", complete=True):
            self.restore_best()

    def interrupted(self, exception: BaseException) -> None:
        """An exception leaves fit. Lightning's answer to SIGTERM comes at a boundary; else what is held is saved."""
        where = private.interrupted_between(exception)
        if where is not None and self._training and self._restored is None:
            self.note(Event.EXCEPTION | Event.SIGNAL)
            self._show(where)
        if not self._leaving.insisted:
            for callback in self.callbacks:
                callback.failed()

    def failed(self, exception: BaseException) -> None:
        """An exception leaves fit, and every callback has let go: a signal that was noted is obeyed now.

        Raises:
            SystemExit, KeyboardInterrupt: as `Leaving.answer`.
        """
        noted = self._leaving.look()
        try:
            self._leaving.answer()
        except BaseException as leaving:
            text = "".join(traceback.format_exception(exception))
            warn(f"{noted} came in a step that failed, and is obeyed now. The step's error was:\n{text}")
            raise leaving from exception

    def close(self) -> None:
        """Fit has ended well, and all is durable: a signal that came meanwhile is answered."""
        self._leaving.close()

    def deafen(self) -> None:
        """Fit ends with an exception: signals go where they went before."""
        self._leaving.remove()

    def release(self) -> None:
        """Leave the trainer as it was."""
        self._training = False
        self._losses.flush()
        self._fences.take_down()
        self._quiet.close()
        private.release(self.trainer)

    def _between_batches(self) -> None:
        if self._restored is None or not self.put_back("between batches"):
            self._observe("between batches")

    def _observe(self, where: state.Where) -> None:
        self._show(where)
        self._leaving.after_boundary()

    def _show(self, where: state.Where) -> None:
        """Let each callback see the boundary."""
        events, self._events = self._events, Event.NONE
        metrics = self._fresh_metrics() if events else {}
        progress = state.progress_of(self.trainer, where)
        signal = self._leaving.look()
        for callback in self.callbacks:
            callback.boundary(progress, events, metrics, lambda: self._capture(where), signal)
        self._fenced = False

    def _obey(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Lightning's handler only notes that SIGTERM came; and it would turn Ctrl-C into exit code 1."""
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            raise SystemExit(exit_code(SIGINT)) from None
        if number == SIGTERM and self.trainer.received_sigterm:
            raise SystemExit(exit_code(SIGTERM))

    def _capture(self, where: state.Where) -> Captured:
        goes_on = where == "between batches"
        self._fences.put_up(self.trainer)
        return state.capture(self.trainer, self.tape, self.validation, self.live, where, steady=goes_on)

    def fence(self) -> None:
        """The optimizer is about to step, or the batch is done: what is still copied must be of before."""
        if not self._fenced:
            for callback in self.callbacks:
                callback.fence()
            self._fenced = True

    def _fresh_metrics(self) -> dict[str, Any]:
        """The metrics that were logged since last asked: Lightning keeps old ones for ever, but makes a new tensor
        whenever it updates one."""
        before, self._metrics = self._metrics, dict(self.trainer.callback_metrics)
        return {name: value for name, value in self._metrics.items() if before.get(name) is not value}

    def _record(self, ask: Callable[[], Any]) -> Any:
        """Wrap what the user's `train_dataloader` gives into the loader that knows its place."""
        return self._wrap(recording, self.tape, self._ask(ask), "max_size_cycle")

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """Ask the user for the train loaders, with the random numbers and attributes that made those of the place."""
        datamodule = private.datamodule_with_state(self.trainer)
        if not self.trainer.optimizers:  # asked by `configure_optimizers`: nothing has changed yet
            return self.tape.ask(ask, datamodule)
        if self._restored is not None and self.tape.pending:
            restored = self._restored[1]
            with restored.placing(), self.live.asking(asked := restored.rest["live"]["asked"]):
                loaders = self.tape.ask(ask, datamodule)
            self.live.asked = asked
            return loaders
        self.live.asked = self._circumstances()
        return self.tape.ask(ask, datamodule)

    def _circumstances(self) -> Mapping[str, Any]:
        """What has changed by now that loaders may depend on."""
        return self.live.circumstances() if self.trainer.optimizers else NOTHING

    def _follow(self, ask: Callable[[], Any]) -> Any:
        """Wrap what the user's `val_dataloader` gives into the loader that is followed."""
        return self._wrap(followed, self.validation, self.validation.ask(ask, self._circumstances()), "sequential")

    def _wrap(self, kind: Callable[[type], Any], owner: Any, loaders: Any, mode: str) -> Any:
        combined = importlib.import_module(f"{self._package}.utilities").CombinedLoader
        if isinstance(loaders, combined):
            return kind(combined)(loaders.iterables, private.mode_of(loaders), owner)
        return kind(combined)(loaders, mode, owner)
