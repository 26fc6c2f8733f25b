"""The kind of tasks of a user's own: models of any class of transformers, documents of tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from gindex.config import TENSORS, CorpusConfig
from gindex.corpus.content_documents import asked_of_tensors, tensor_encoder
from gindex.corpus.contents import tensor_content, tensor_of
from gindex.corpus.encoding import Encoder
from gindex.corpus.objectives import Objective
from gindex.errors import ModelError, QueryError
from gindex.model.tasks.function import TRIED, FunctionTask, TaskFunction
from gindex.model.tasks.kind import TaskKind
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader


class FunctionKind(TaskKind):
    """A model with a loss of a user's own; `function_kind` makes a class for each function.

    Attributes:
        function: The function.
    """

    described = "a model of a class of transformers"
    document_forms = (TENSORS,)
    corpus_settings = ("columns",)
    reads_tokens = False
    mapping = ""
    function: ClassVar[TaskFunction]
    _examples: Sequence[Objective] = ()

    @classmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether there is such a class."""
        del settings
        return cls.auto_model == architecture

    @classmethod
    def knows(cls, settings: object) -> bool:
        """Whether transformers has the class of the model."""
        del settings
        import transformers

        return hasattr(transformers, cls.auto_model)

    @classmethod
    def corpus_config(cls, config: CorpusConfig) -> CorpusConfig:
        """The settings of documents, with the columns that the function names.

        Raises:
            ConfigError: Another form is asked for.
        """
        config = super().corpus_config(config)
        return config if config.columns else replace(config, columns=cls.function.columns)

    def check(self, most_tokens: int) -> None:
        """Check nothing yet: the function is tried on documents, by `prepare`."""
        del most_tokens

    def check_length(self, tokens: int) -> None:
        """Check nothing: documents are as large as they are."""
        del tokens

    def prepare(self, examples: Callable[[], Sequence[Objective]]) -> None:
        """Try the function on a few documents of one kind.

        Raises:
            ModelError: Its losses are not finite, differentiable and each document's own.
        """
        found = examples()
        self._examples = [each for each in found if each.kind == found[0].kind][:TRIED]
        self.task().check()

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What makes one part of the tensors of a document."""
        del config, most_tokens, seed
        return tensor_encoder()

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """The tensors of a query.

        Raises:
            QueryError: It has none, or not those of the function.
        """
        del form, reader, limit
        name, given, columns = name_of(query), query.tensors or {}, self._columns
        if given.keys() != columns or query.prompt:
            raise QueryError(
                field=name,
                expected=f"`tensors` {', '.join(sorted(columns))}, or a `document` of the index",
                found=", ".join(sorted(given)) or "none",
                remedy="see docs/tasks.md",
            )
        content = tensor_content({key: tensor_of(value, f"{name}, {key}") for key, value in given.items()})
        return [CountedText(asked_of_tensors(content))]

    @property
    def _columns(self) -> set[str]:
        content = self._examples[0].texts[0].content if self._examples else None
        return set(self.function.columns if content is None else content.tensors())

    def task(self) -> FunctionTask:
        """The model with its loss.

        Raises:
            ModelError: There are no documents to try it on.
        """
        if not self._examples:
            raise ModelError(field=self.place, expected="documents of tensors to try it on", found="none")
        return FunctionTask(self.model, self.function, self._examples)


def function_kind(name: str, settings: Mapping[str, Any]) -> type[FunctionKind]:
    """The kind of the task of a function, which is imported.

    Args:
        name: The function's name.
        settings: The model's config.json.

    Raises:
        ConfigError: There is no such function.
    """
    architecture = str(next(iter(settings.get("architectures") or ()), "none"))
    attributes = {"name": name, "function": TaskFunction.load(name), "auto_model": architecture}
    return type("FunctionKind", (FunctionKind,), attributes)
