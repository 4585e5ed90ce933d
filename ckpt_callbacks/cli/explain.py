"""``ckpt explain RUN``: when a run saves and what it keeps, in words, and what that means for what is there."""

from __future__ import annotations

from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, Directory, console, emit, errors_in_one_line
from ckpt_callbacks.cli.prune import document_of, judgement
from ckpt_callbacks.engine import parse_recorded_trigger
from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.run import Run

__all__ = ["explain"]

ABOVE = "pins, the newest, and the newest full and healthy ones, whatever the rules say"


@errors_in_one_line
def explain(run: Directory, as_json: AsJson = False) -> None:
    """Say in words when RUN saves, what it keeps, and what its rules would do now."""
    found = Run(run)
    snapshots, verdict, abandoned = found.snapshots(), found.verdict(), found.abandoned()
    saves, keeps = _saves(found), [rule.words for rule in found.known_rules]
    if as_json:
        emit(
            {
                "run": str(found.path),
                "policy": dict(found.policy),
                "saves": saves,
                "keeps": keeps,
                **document_of(verdict, abandoned),
            }
        )
        return
    screen = console()
    for title, sentences in (("saves", saves), ("keeps", [*keeps, ABOVE])):
        screen.print(Text(title, style="bold"))
        for sentence in sentences:
            screen.print(Text(f"  {sentence}"))
    screen.print(judgement(snapshots, verdict, abandoned))


def _saves(run: Run) -> list[str]:
    text = str(run.policy.get("save", ""))
    try:
        trigger = parse_recorded_trigger(text).bind(run.monitors)
    except ConfigurationError:  # a trigger class of the user's is in it
        return [text or "not recorded"]
    return list(trigger.sentences)
