"""``ckpt explain RUN``: when a run saves and what it keeps, in words, and what that means for what is there."""

from __future__ import annotations

from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, Directory, console, emit, errors_in_one_line
from ckpt_callbacks.cli.prune import judgement, verdict_of
from ckpt_callbacks.engine import parse_trigger
from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.run import Run

__all__ = ["explain"]

ABOVE = "pins, the newest, and the newest full and healthy ones, whatever the rules say"


@errors_in_one_line
def explain(run: Directory, as_json: AsJson = False) -> None:
    """Say in words when RUN saves, what it keeps, and what its rules would do now."""
    found = Run(run)
    snapshots, verdict = found.snapshots(), verdict_of(found)
    saves, keeps = _saves(found), _keeps(found)
    if as_json:
        emit(
            {
                "run": str(found.path),
                "policy": dict(found.policy),
                "saves": saves,
                "keeps": keeps,
                "keep": {id: list(why) for id, why in verdict.keep.items()} if verdict else None,
                "drop": dict(verdict.drop) if verdict else None,
                "demote": dict(verdict.demote) if verdict else None,
            }
        )
        return
    screen = console()
    for title, sentences in (("saves", saves), ("keeps", [*keeps, ABOVE])):
        screen.print(Text(title, style="bold"))
        for sentence in sentences:
            screen.print(Text(f"  {sentence}"))
    if verdict is not None:
        screen.print(judgement(snapshots, verdict))


def _saves(run: Run) -> list[str]:
    text = str(run.policy.get("save", ""))
    try:
        trigger = parse_trigger(text).bind(run.monitors)
    except ConfigurationError:  # a function of the user's is in it
        return [text or "not recorded"]
    return trigger.words.split("; ")


def _keeps(run: Run) -> list[str]:
    try:
        return [rule.words for rule in run.rules]
    except ConfigurationError:
        return [str(rule) for rule in run.policy["keep"]]
