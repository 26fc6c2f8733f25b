"""Prediction of the next token: what decoder-only language models are trained to do."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gindex.config import COMPLETION, MESSAGES, PREFERENCE, TEXT, TOKENS, CorpusConfig
from gindex.corpus.encoding import DocumentEncoder, Encoder
from gindex.errors import GindexError, ModelError
from gindex.model.causality import check_causal, check_long, ordinary_tokens
from gindex.model.library_messages import first_line
from gindex.model.losses import CausalLanguageModel
from gindex.model.tasks.kind import TaskKind
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.next_tokens import predicted_texts
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_CROSS_ATTENTION = re.compile(r"(^|\.)(encoder_attn|crossattention|cross_attention|EncDecAttention)$")

_OTHER_TASK = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|MaskedLM|NextSentencePrediction)$"
    r"|Reward"
)
"""Architectures that do not predict next tokens."""


class CausalKind(TaskKind):
    """A model whose logits at each token depend on no later one, and predict the next."""

    name = "causal"
    auto_model = "AutoModelForCausalLM"
    mapping = "MODEL_FOR_CAUSAL_LM_MAPPING"
    described = "a causal language model"
    query_forms = (COMPLETION, MESSAGES, TOKENS, PREFERENCE)
    document_forms = (TEXT, *query_forms)
    corpus_settings: ClassVar[tuple[str, ...]] = (
        "text_field",
        "prompt_field",
        "completion_field",
        "messages_field",
        "loss",
        "beta",
        "pack",
        "overlap",
    )

    @classmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether an architecture predicts next tokens, as far as its name tells."""
        return not settings.get("is_encoder_decoder") and not _OTHER_TASK.search(architecture)

    @classmethod
    def check_architecture(cls, settings: Mapping[str, Any], place: str) -> None:
        """Check that a config.json does not speak of another task.

        Raises:
            ModelError: It does.
        """
        named = settings.get("architectures") or []
        shown = ", ".join(map(str, named)) or settings.get("model_type", "a model")
        if settings.get("is_encoder_decoder"):
            raise ModelError(
                field=place,
                expected=cls.described,
                found=f"an encoder-decoder ({shown}), whose decoder would run without what it attends to",
                remedy="use a decoder-only model, or give it as an encoder-decoder with `task` seq2seq",
            )
        if any(_OTHER_TASK.search(str(architecture)) for architecture in named):
            raise ModelError(
                field=place,
                expected=cls.described,
                found=f"{shown}, which does not predict next tokens",
                remedy="give the language model that it was made from, or another `task`",
            )

    def check(self, most_tokens: int) -> None:
        """Run the model on a few tokens: it must take tokens alone, and be causal.

        Raises:
            ModelError: It does not, is not, or attends to an encoder that is not there.
            NonFiniteError: Its logits are NaN or infinite.
        """
        self._check_cross_attention()
        model = self.model
        device = next(model.parameters()).device
        narrow = any(parameter.dtype.itemsize == 2 for parameter in model.parameters())
        try:
            check_causal(
                self.place,
                lambda tokens: model(tokens, use_cache=False).logits,
                self._tokens(),
                most_tokens,
                device,
            )
        except GindexError:
            raise
        except Exception as error:
            raise ModelError(
                field=self.place,
                expected="a causal language model that takes tokens alone",
                found=f"that {type(model).__name__} fails on them ({type(error).__name__}: {first_line(error)})",
                remedy="try `dtype` float32" if narrow else "use one that needs no pictures or masks",
            ) from error

    def check_length(self, tokens: int) -> None:
        """Check that the model takes so many tokens, and is causal over them.

        Raises:
            ModelError: It does not, or is not.
        """
        dtype = next(self.model.parameters()).dtype
        check_long(type(self.model).__name__, self.task().losses, self._tokens(), tokens, dtype)

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What cuts documents of any form into parts."""
        del most_tokens, seed  # the parts go by the settings alone
        return DocumentEncoder(self.tokenizer, config, self.task().vocabulary)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a completion, a conversation or prepared tokens."""
        return predicted_texts(query, form, reader, limit)

    def task(self) -> CausalLanguageModel:
        """The model with its loss."""
        return CausalLanguageModel(self.model)

    def _tokens(self) -> list[int]:
        return ordinary_tokens(self.tokenizer, len(self.model.get_input_embeddings().weight))  # type: ignore[operator]

    def _check_cross_attention(self) -> None:
        """Refuse the decoder of an encoder-decoder: it has weights that attend to an encoder, and there is none."""
        attending = next((name for name, _ in self.model.named_modules() if _CROSS_ATTENTION.search(name)), None)
        if attending is not None:
            raise ModelError(
                field=self.place,
                expected="a causal language model",
                found=(
                    f"an encoder-decoder's decoder ({type(self.model).__name__}, whose {attending} attends to an "
                    "encoder), which would run without it"
                ),
                remedy="use a decoder-only model",
            )
