"""Where the random generators stand, and back there: the global ones of libraries in use, and those an object holds.

Only libraries that are imported already take part, and reading a state draws nothing from it. A state is a tree of
plain values and arrays, for ``encode``.

Global are also the generators that the user's own modules have under a global name, or in an attribute of a class.

Not reached: generators inside data loader workers and generators local to a function; TensorFlow's counters of ops that
have a seed of their own (``tf.random.uniform(..., seed=1)``), and all of TensorFlow's unseeded ops when
``tf.random.set_seed`` was not called. JAX has no global state.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np

from ckpt_callbacks.errors import CheckpointError, CorruptSnapshotError
from ckpt_callbacks.state.objects import scripts

__all__ = [
    "capture",
    "capture_generators",
    "generators",
    "is_generator",
    "not_captured",
    "read_generator",
    "restore",
    "restore_generators",
    "walk",
    "write_generator",
]

MAX_OBJECTS = 10_000
"""How many objects ``generators`` looks at."""

MAX_ITEMS = 256
"""How many items of a container ``generators`` looks at."""

MAX_GLOBAL_ITEMS = 32
"""How many items a container under a global name may have for ``capture`` to look at them."""

BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")

Tree = dict[str, Any]


# The global generators -----------------------------------------------------------------------------------------------


def capture(only: Container[str] | None = None) -> Tree:
    """The state of every global generator: ``python``, ``numpy``, and ``torch``, ``tensorflow``, ``scripts`` if in use.

    ``only`` names the parts to read; all of them by default.
    """
    parts = {name: read() for name, (read, _) in _PARTS.items() if only is None or name in only}
    return {name: state for name, state in parts.items() if state is not None}


def restore(tree: Mapping[str, Any]) -> list[str]:
    """Put every generator where ``capture`` found it; return the parts that are not in use here, which were left alone.

    CorruptSnapshotError: a generator doesn't accept its state.
    """
    left: list[str] = []
    for name, state in tree.items():
        if name not in _PARTS:
            left.append(name)
            continue
        try:
            left += _PARTS[name][1](state)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CorruptSnapshotError(f"the random state of {name} can't be set: {error}") from error
    return left


def not_captured() -> dict[str, str]:
    """What ``capture`` can't capture although it is in use: library -> why and what to do."""
    context = _tensorflow_context()
    if context is None or context._seed is not None:
        return {}
    return {"tensorflow": "its ops draw unseeded: call tf.random.set_seed() or keras.utils.set_random_seed() first"}


def _read_python() -> Tree:
    return _mersenne(random.getstate())


def _set_python(state: Tree) -> list[str]:
    random.setstate(_unmersenne(state))
    return []


def _mersenne(state: tuple[Any, ...]) -> Tree:
    """The state of a ``random.Random`` with its 625 words as one array."""
    version, words, gauss = state
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def _unmersenne(state: Mapping[str, Any]) -> tuple[Any, ...]:
    return state["version"], tuple(np.asarray(state["words"]).tolist()), state["gauss"]


def _read_numpy() -> Tree:
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict), "legacy=False gives a dict"
    return state


def _set_numpy(state: Tree) -> list[str]:
    kind = state["bit_generator"]
    if kind != _read_numpy()["bit_generator"]:  # someone called np.random.set_bit_generator
        np.random.set_bit_generator(_bits(kind))  # type: ignore[attr-defined]  # numpy's stubs lack it
    np.random.set_state(state)
    return []


def _read_torch() -> Tree | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    state: Tree = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def _set_torch(state: Tree) -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None:
        return ["torch"]
    torch.set_rng_state(state["cpu"])
    left = []
    for index, device in enumerate(state.get("cuda", [])):
        if index < torch.cuda.device_count():
            torch.cuda.set_rng_state(device, index)
        else:
            left.append(f"torch.cuda:{index}")
    if "mps" in state:
        if torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])
        else:
            left.append("torch.mps")
    return left


def _tensorflow_context() -> Any | None:
    """TensorFlow's eager context, if there is one; read from tensorflow 2.21.

    Its ``_seed`` is what ``tf.random.set_seed`` was given, its ``_rng`` what seeds ops without one.
    """
    module = sys.modules.get("tensorflow.python.eager.context")
    return None if module is None else module.context_safe()


def _tensorflow_generator() -> Any | None:
    """TensorFlow's global ``tf.random.Generator``, if there is one: its public getter makes it. From 2.21."""
    module = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return None if module is None else module.global_generator


def _read_tensorflow() -> Tree | None:
    context, generator = _tensorflow_context(), _tensorflow_generator()
    state: Tree = {}
    if context is not None and context._seed is not None:
        state["seed"] = int(context._seed)
        state["rng"] = _mersenne(context._rng.getstate())
    if generator is not None:
        state["generator"] = {"algorithm": int(generator.algorithm), "state": generator.state.numpy()}
    return state or None


def _set_tensorflow(state: Tree) -> list[str]:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return ["tensorflow"]
    if "seed" in state:
        tensorflow.random.set_seed(state["seed"])  # makes the generator and clears the kernels' counters
        context = _tensorflow_context()
        assert context is not None, "set_seed makes the context"
        context._rng.setstate(_unmersenne(state["rng"]))
    if "generator" in state:
        saved, generator = state["generator"], _tensorflow_generator()
        if generator is not None and int(generator.algorithm) == saved["algorithm"]:
            generator.state.assign(saved["state"])
        else:
            made = tensorflow.random.Generator.from_state(saved["state"], saved["algorithm"])
            tensorflow.random.set_global_generator(made)
    return []


def _of_scripts() -> dict[str, Any]:
    """The generators under global names of the user's modules, and in attributes of their classes."""
    found: dict[int, tuple[str, Any]] = {}
    for module, names in scripts.namespaces().items():
        for name, value in list(names.items()):
            for path, one in _in_global(name, value):
                if _kind(one) is not None:
                    found.setdefault(id(one), (f"{module}.{path}", one))
    return dict(found.values())


def _in_global(name: str, value: Any) -> list[tuple[str, Any]]:
    """A global value, or what a class, a container or an object of the user's has, one step down."""
    kind = value if isinstance(value, type) else type(value)
    if kind in (dict, list, tuple) and len(value) <= MAX_GLOBAL_ITEMS:
        return [(f"{name}{key}", item) for key, item in _children(value)]
    held = getattr(value, "__dict__", None) if scripts.is_script(kind.__module__ or "") else None
    if not isinstance(held, Mapping):
        return [(name, value)]
    return [(name, value), *((f"{name}.{attribute}", item) for attribute, item in list(held.items()))]


def _read_scripts() -> Tree | None:
    return {path: read_generator(value) for path, value in _of_scripts().items()} or None


def _set_scripts(state: Tree) -> list[str]:
    live = _of_scripts()
    return [path for path, saved in state.items() if path not in live or not write_generator(live[path], saved)]


_PARTS: dict[str, tuple[Callable[[], Tree | None], Callable[[Tree], list[str]]]] = {
    "python": (_read_python, _set_python),
    "numpy": (_read_numpy, _set_numpy),
    "torch": (_read_torch, _set_torch),
    "tensorflow": (_read_tensorflow, _set_tensorflow),
    "scripts": (_read_scripts, _set_scripts),
}


Stop = Callable[[object], bool]
"""Tells what a walk leaves out, with all that it holds."""


def _nowhere(value: object) -> bool:
    return False


# Generators that an object holds -------------------------------------------------------------------------------------


def generators(root: object, stop: Stop = _nowhere) -> list[tuple[str, Any]]:
    """The random generators that can be reached from ``root``, nearest first, each with the path to it.

    Found are ``random.Random``, numpy's ``Generator``, ``RandomState`` and ``BitGenerator``, ``torch.Generator`` and
    ``tf.random.Generator``.
    The walk goes through attributes, slots, lists, tuples, deques, dicts, partials, bound methods, and the defaults and
    closures of the user's own functions; not into tensors, arrays, modules, classes or text. It looks at
    ``MAX_OBJECTS`` objects at most, at the first ``MAX_ITEMS`` of each container, and runs no code of theirs. The order
    follows from that of attributes and items alone.
    """
    return [(path, value) for path, value in walk(root, stop) if is_generator(value)]


def walk(root: object, stop: Stop = _nowhere) -> Iterator[tuple[str, Any]]:
    """What can be reached from ``root``, nearest first, as ``generators`` looks for it, each with the path to it.

    ``stop`` tells objects that are left out, with all that they hold.
    """
    queue: deque[tuple[str, Any]] = deque([("", root)])
    seen = {id(root)}
    while queue:
        path, value = queue.popleft()
        yield path, value
        if _kind(value) is not None:
            continue
        for key, child in _children(value):
            if len(seen) >= MAX_OBJECTS:
                break
            if id(child) not in seen and not _is_opaque(child) and not stop(child):
                seen.add(id(child))
                queue.append(((path + key).removeprefix("."), child))


def capture_generators(root: object, stop: Stop = _nowhere) -> Tree:
    """The state of every generator that ``root`` holds, by its path; ``stop`` as in ``walk``."""
    return {path: read_generator(value) for path, value in generators(root, stop)}


def is_generator(value: object) -> bool:
    """Whether ``generators`` would give it."""
    return _kind(value) is not None


def read_generator(generator: object) -> Tree:
    """The state of one generator of those that ``generators`` finds."""
    kind = _kind(generator)
    assert kind is not None, "generators gives nothing else"
    return {"kind": kind, "state": _KINDS[kind][0](generator)}


def write_generator(generator: object, saved: Mapping[str, Any]) -> bool:
    """Put one generator where ``read_generator`` found it, if it is of the same kind; tell whether it is."""
    if _kind(generator) != saved["kind"]:
        return False
    _KINDS[saved["kind"]][1](generator, saved["state"])
    return True


def restore_generators(root: object, tree: Mapping[str, Any], stop: Stop = _nowhere) -> list[str]:
    """Put the generators that ``root`` holds where ``capture_generators`` found them.

    An attribute or item that is None or missing yet gets its generator: many make theirs when they first draw.

    Returns the paths for which ``root`` has no generator of that kind (any more); those were left alone.

    CorruptSnapshotError: a generator doesn't accept its state.
    """
    live = dict(generators(root, stop))
    live |= _unmade(root, {path: saved for path, saved in tree.items() if path not in live}, stop)
    left = []
    for path, saved in tree.items():
        try:
            if path not in live or not write_generator(live[path], saved):
                left.append(path)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptSnapshotError(f"the random state of {path} can't be set: {error}") from error
    return left


def _unmade(root: object, tree: Mapping[str, Any], stop: Stop) -> Tree:
    """Generators made for attributes and items that will hold one and don't yet, by their paths."""
    made: Tree = {}
    for path, value in walk(root, stop) if tree else ():
        for place in [place for place in tree if place not in made and place.startswith(path)]:
            names, name = _place_in(value, place[len(path) :].removeprefix("."))
            if path and names is not None and names.get(name) is None:
                names[name] = made[place] = _make(tree[place])
    return made


def _place_in(value: Any, step: str) -> tuple[dict[Any, Any] | None, Any]:
    """The names of an object or dict, and the one that a single step of a path means; None if it is no such step."""
    if step.isidentifier():
        attributes = getattr(value, "__dict__", None)
        return (attributes, step) if type(attributes) is dict else (None, None)
    if type(value) is dict and step[:1] == "[" and step[-1:] == "]":
        with contextlib.suppress(ValueError, SyntaxError):
            return value, ast.literal_eval(step[1:-1])
    return None, None


def _make(saved: Mapping[str, Any]) -> Any:
    """A generator of the kind that was saved; its state is set later."""
    if saved["kind"] == "random.Random":
        return random.Random()
    if saved["kind"] == "numpy.RandomState":
        return np.random.RandomState(_bits(saved["state"]["bit_generator"]))
    if saved["kind"] == "torch.Generator":
        return sys.modules["torch"].Generator()
    if saved["kind"] == "tensorflow.Generator":
        generators, state = sys.modules["tensorflow"].random.Generator, saved["state"]
        return generators.from_state(state["state"], state["algorithm"])
    bits = _bits(saved["state"]["bit_generator"])
    return bits if saved["kind"] == "numpy.BitGenerator" else np.random.Generator(bits)


def _bits(kind: str) -> Any:
    """One of numpy's bit generators, by name."""
    if kind not in BIT_GENERATORS:
        raise ValueError(f"numpy has no bit generator called {kind!r}")
    return getattr(np.random, kind)()


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What ``value`` refers to, each with its step of the path; no code of its class runs."""
    if issubclass(type(value), dict):  # isinstance is true of proxies, too
        for index, (key, item) in enumerate(itertools.islice(dict.items(value), MAX_ITEMS)):
            yield f"[{key!r}]" if type(key) in (str, int) else f"[#{index}]", item
    plain: Any = next((kind for kind in (list, tuple, deque) if issubclass(type(value), kind)), None)
    if plain is not None:
        for index, item in enumerate(itertools.islice(plain.__iter__(value), MAX_ITEMS)):
            yield f"[{index}]", item
    if type(value) is functools.partial:
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    if type(value) is types.MethodType:
        yield ".__self__", value.__self__
        return  # its attributes are those of the function
    if type(value) is types.FunctionType:
        yield from ((".defaults", value.__defaults__), (".kwdefaults", value.__kwdefaults__))
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is empty yet
                yield f".closure.{name}", cell.cell_contents
    yield from ((f".{name}", item) for name, item in itertools.islice(_attributes(value), MAX_ITEMS))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What lies in the slots and the ``__dict__`` of ``value``."""
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items() if "__slots__" in vars(kind) else ():
            if isinstance(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # a slot that was never set
                    yield name, slot.__get__(value)
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return
    if type(attributes) is dict:
        yield from attributes.items()


_OPAQUE = (
    *(str, bytes, bytearray, int, float, complex, type(None), type, np.ndarray, np.generic),
    *(types.ModuleType, types.BuiltinFunctionType, types.CodeType),
)


def _is_opaque(value: object) -> bool:
    """Whether the walk stops at ``value``: nothing in it can hold a generator that belongs to the root."""
    if isinstance(value, _OPAQUE):
        return True
    if isinstance(value, types.FunctionType):
        return not scripts.is_script(value.__module__ or "")
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _kind(value: object) -> str | None:
    """The kind of random generator that ``value`` is, or None."""
    if isinstance(value, random.Random):
        return None if isinstance(value, random.SystemRandom) else "random.Random"
    if isinstance(value, np.random.Generator):
        return "numpy.Generator"
    if isinstance(value, np.random.RandomState):
        return "numpy.RandomState"
    if isinstance(value, np.random.BitGenerator):
        return "numpy.BitGenerator"
    if _is_tensorflows(value):
        return "tensorflow.Generator"
    torch = sys.modules.get("torch")
    return "torch.Generator" if torch is not None and isinstance(value, torch.Generator) else None


def _is_tensorflows(value: object) -> bool:
    package = type(value).__module__.partition(".")[0]
    return package == "tensorflow" and isinstance(value, sys.modules["tensorflow"].random.Generator)


def _read_tensorflows(generator: Any) -> Tree:
    return {"algorithm": int(generator.algorithm), "state": generator.state.numpy()}


def _write_tensorflows(generator: Any, state: Mapping[str, Any]) -> None:
    if int(generator.algorithm) != state["algorithm"]:
        raise ValueError("a tf.random.Generator has another algorithm")
    generator.state.assign(state["state"])


def _set_bits(generator: Any, state: Any) -> None:
    generator.state = state  # numpy refuses the state of another kind of bit generator


_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    "random.Random": (
        lambda value: _mersenne(value.getstate()),
        lambda value, state: value.setstate(_unmersenne(state)),
    ),
    "numpy.Generator": (
        lambda value: value.bit_generator.state,
        lambda value, state: _set_bits(value.bit_generator, state),
    ),
    "numpy.BitGenerator": (lambda value: value.state, _set_bits),
    "numpy.RandomState": (
        lambda value: value.get_state(legacy=False),
        lambda value, state: value.set_state(state),
    ),
    "torch.Generator": (lambda value: value.get_state(), lambda value, state: value.set_state(state)),
    "tensorflow.Generator": (_read_tensorflows, _write_tensorflows),
}
