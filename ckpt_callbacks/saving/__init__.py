"""Saving: from the state of a moment to a durable snapshot, with training held up as little as possible."""

from ckpt_callbacks.saving.decisions import Decisions, Ruling
from ckpt_callbacks.saving.keeper import Keeper
from ckpt_callbacks.saving.requests import Request, Requests
from ckpt_callbacks.saving.saver import Content, Saver

__all__ = ["Content", "Decisions", "Keeper", "Request", "Requests", "Ruling", "Saver"]
