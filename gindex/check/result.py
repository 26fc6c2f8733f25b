"""What a check of a model found: findings under headings, and whether to go on."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gindex.errors import GindexError, ModelError

OK, WARNING, NO, NOT_TRIED = VERDICTS = ("ok", "warning", "no", "not tried")
"""What is said of a finding. One `no` is enough for the whole."""

Figure = float | int | str | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of a check.

    Attributes:
        section: The heading that it stands under.
        name: What was tried.
        found: What was found, in words.
        verdict: One of `VERDICTS`.
        remedy: What to do about it; settings by their Python names in backticks.
        figures: What was measured, by name: seconds, bytes, tokens a second, relative errors, cosines, shares.
        exit_code: Exit code of the error that a build would end with, where it is one.
    """

    section: str
    name: str
    found: str
    verdict: str = OK
    remedy: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    exit_code: int | None = None

    @classmethod
    def refusal(cls, section: str, name: str, error: GindexError) -> "Finding":
        """The finding that a build would refuse the model, or settings, by an error."""
        found = str(error).removesuffix(f"; {error.remedy}") if error.remedy else str(error)
        return cls(section=section, name=name, found=found, verdict=NO, remedy=error.remedy, exit_code=error.exit_code)


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """A finished check.

    Attributes:
        model: The model, as it was named.
        device: Device that it was tried on; None where it could not be loaded.
        dtype: Number format of the passes; None likewise.
        seconds: What the check took.
        findings: All that was found, in order.
    """

    model: str
    device: str | None
    dtype: str | None
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def go(self) -> bool:
        """Whether a build may begin: nothing is a `no`."""
        return not any(finding.verdict == NO for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 to go; else that of the error that a build would end with, or of a model that cannot be used."""
        return next((f.exit_code or ModelError.exit_code for f in self.findings if f.verdict == NO), 0)

    @property
    def conclusion(self) -> str:
        """What follows from the findings, in one line, with the remedy."""
        first = next(self.of(NO), None)
        if first is not None:
            remedy = f"; {first.remedy}" if first.remedy else ""
            return f"no: {first.section}, {first.name}: {first.found}{remedy}"
        warnings = list(self.of(WARNING))
        if not warnings:
            return "go: nothing stands against a build"
        remedies = "; ".join(dict.fromkeys(warning.remedy for warning in warnings if warning.remedy))
        count = f"{len(warnings)} warning{'s' * (len(warnings) > 1)}"
        return f"go, with {count}{f': {remedies}' if remedies else ''}"

    def of(self, verdict: str) -> Iterator[Finding]:
        """The findings of a verdict."""
        return (finding for finding in self.findings if finding.verdict == verdict)

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "seconds": self.seconds,
            "go": self.go,
            "exit_code": self.exit_code,
            "conclusion": self.conclusion,
            "findings": [
                {name: value for name, value in asdict(f).items() if name != "exit_code"} for f in self.findings
            ],
        }
