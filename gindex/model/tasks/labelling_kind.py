"""What the tasks of models that label what they read have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from gindex.model.causality import ordinary_tokens
from gindex.model.tasks.invariance import check_invariant, check_longest
from gindex.model.tasks.kind import TaskKind
from gindex.model.tasks.labelling import LabellingTask


class LabellingKind(TaskKind):
    """A model that gives labels at positions of its own.

    Attributes:
        endings: Ends of the names of its architectures.
        remedy: What to do where the model does not run.
    """

    endings: ClassVar[tuple[str, ...]]
    remedy: ClassVar[str] = "use one that takes text alone"

    @classmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether the name of an architecture says so."""
        del settings
        return architecture.endswith(cls.endings)

    def check(self, most_tokens: int) -> None:
        """Check that the model runs, and that its outputs depend on neither padding nor other texts.

        Raises:
            ModelError: It does not, or they do.
            NonFiniteError: Its outputs are NaN or infinite.
        """
        check_invariant(self.place, self.task(), self.tokens(), most_tokens, self.remedy)

    def check_length(self, tokens: int) -> None:
        """Check that the model takes so many tokens, and that padding to them changes nothing.

        Raises:
            ModelError: It does not, or it does.
        """
        check_longest(self.place, self.task(), self.tokens(), tokens)

    def tokens(self) -> list[int]:
        """Tokens to try the model on."""
        return ordinary_tokens(self.tokenizer, self.task().vocabulary)

    @abstractmethod
    def task(self) -> LabellingTask:
        """The model with its loss."""
