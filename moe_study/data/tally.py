"""What became of everything that a recipe came across: read, or left out and why. Nothing goes in silence."""

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 3  # names kept under each reason


@dataclass
class LeftOut:
    """How many were left out for one reason, and the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Counts of one reading; grows while documents are read."""

    files: int = 0  # opened
    left_out: dict[str, LeftOut] = field(default_factory=dict)  # by reason
    fields: set[str] = field(default_factory=set)  # label fields that some record had
    notes: list[str] = field(default_factory=list)  # sentences for the user

    def leave_out(self, reason: str, name: str = "", *, count: int = 1) -> None:
        """Count what is left out for `reason`."""
        entry = self.left_out.setdefault(reason, LeftOut())
        entry.count += count
        if name and len(entry.examples) < EXAMPLES:
            entry.examples.append(name)

    def in_brackets(self) -> str:
        """What was left out, behind a sentence that names none of it; "" where nothing was."""
        left_out = ", ".join(f"{entry.count:,} {reason}" for reason, entry in self.left_out.items())
        return f" (left out: {left_out})" if left_out else ""

    def plain(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        left_out = {reason: {"count": e.count, "examples": e.examples} for reason, e in self.left_out.items()}
        return {"files": self.files, "left_out": left_out, "notes": self.notes}
