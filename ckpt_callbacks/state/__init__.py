"""What a snapshot holds: a tree of plain values and tensors, and the random generators."""

from ckpt_callbacks.state.objects.lent import Member
from ckpt_callbacks.state.random_state import (
    capture,
    capture_generators,
    generators,
    not_captured,
    restore,
    restore_generators,
)
from ckpt_callbacks.state.tensors.safetensors_file import Image, Layout, SafetensorsFile, open_file
from ckpt_callbacks.state.tensors.tensor import HostTensor, Source, as_numpy
from ckpt_callbacks.state.tree import Encoded, Plan, decode, encode, from_json, plan, to_json
from ckpt_callbacks.state.tree.codecs import register_codec, unregister_codec
from ckpt_callbacks.state.tree.grammar import MAX_DEPTH

__all__ = [
    "MAX_DEPTH",
    "Encoded",
    "HostTensor",
    "Image",
    "Layout",
    "Member",
    "Plan",
    "SafetensorsFile",
    "Source",
    "as_numpy",
    "capture",
    "capture_generators",
    "decode",
    "encode",
    "from_json",
    "generators",
    "not_captured",
    "open_file",
    "plan",
    "register_codec",
    "restore",
    "restore_generators",
    "to_json",
    "unregister_codec",
]
