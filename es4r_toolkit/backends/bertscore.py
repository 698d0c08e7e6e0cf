"""BertScore: how alike a reply and its reference are to a BERT, through the bert-score library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import (
    AutoModel,
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
)

from es4r_toolkit.backends.checkpoints import is_folder, load_config, load_weights, naming
from es4r_toolkit.backends.untrusted import instead_of_pickles
from es4r_toolkit.errors import BackendError, require

BATCH = 64
AT_ONCE = 4 * BATCH  # pairs between two steps of a bar; the library sorts these by length
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Tokenizers that state no bound have 1e30, which the library cannot pass on; most encoders read 512 tokens.
VERY_LONG, LONGEST = 10**6, 512
# Of a model that the library's authors have not tuned: BERT's best layers are 9 of 12 and 18 of 24.
DEPTH = 0.75


class BertScore:
    """BERTScore (Zhang et al., 2020): the F measure, without idf weights, not rescaled, as the paper's script has it.

    The library asks for three things that transformers 5 no longer does, and gets them here: the space before a
    RoBERTa's first word, a bound on the length of a text, and empty texts.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder of a safetensors checkpoint, such as ``roberta-large``.
    layer : int, optional
        Whose states are compared; where left out the library's for a name that it knows, or a folder of that name,
        and three quarters of the depth of any other.
    revision : str, optional
        Branch, tag or commit on the hub.
    device : str
        Where it runs.

    Attributes
    ----------
    layer, layers : int
        The layer, and how many there are.
    layer_by : str
        Who chose it.

    Raises
    ------
    BackendError
        If the library is missing, or there is no such checkpoint or one that the library cannot use.
    ConfigError
        If there is no such layer.
    """

    def __init__(self, source: str | Path, layer: int | None = None, revision: str | None = None, device: str = "cpu"):
        try:
            from bert_score import BERTScorer
            from bert_score.utils import model2layers
        except ImportError as fault:
            raise BackendError(
                "bert-score", f"is not installed ({fault})", "pip install 'es4r-toolkit[bertscore]'"
            ) from fault
        self.source, self.revision = str(source), revision
        folder = _folder(source, revision)
        config = load_config(folder)
        self.layers = config.num_hidden_layers
        self.layer, self.layer_by = _layer(self.source, layer, self.layers, model2layers)
        # The library loads it itself, and draws at random what the checkpoint lacks.
        load_weights(AutoModel, folder, config, lambda key: not key.startswith("pooler"))
        with naming(folder):
            try:
                self._scorer = BERTScorer(str(folder), num_layers=self.layer, batch_size=BATCH, device=device)
            except (AttributeError, TypeError) as fault:
                problem = f"is a {config.model_type}, which bert-score cannot cut at a layer ({fault})"
                raise BackendError(source, problem, "name a BERT, RoBERTa or the like") from fault
            self._scorer._tokenizer = _tokenizer(folder, config)
        self._known: dict[tuple[str, str], float] = {}

    @property
    def settings(self) -> dict[str, object]:
        """What a figure depends on, as plain values; ``hash`` is the library's."""
        return {
            "model": self.source,
            "revision": self.revision,
            "layer": self.layer,
            "layers": self.layers,
            "layer_by": self.layer_by,
            "rescaled": self._scorer.rescale_with_baseline,
            "hash": self._scorer.hash.replace(self._scorer.model_type, self.source),
        }

    def __call__(
        self, hypotheses: Sequence[str], references: Sequence[str], progress: Callable[..., Iterable] | None = None
    ) -> list[float]:
        """Of each reply and its reference; 0 for an empty one, which is what the library gives it.

        Pairs that were scored before are not scored again. ``progress`` wraps an iterable, given ``unit`` and
        ``total`` too.
        """
        pairs = list(zip(hypotheses, references))
        missing = [pair for pair in dict.fromkeys(pairs) if all(map(str.strip, pair)) and pair not in self._known]
        scored = self._scored(missing)
        for pair, score in scored if progress is None else progress(scored, unit="pair", total=len(missing)):
            self._known[pair] = score
        return [self._known.get(pair, 0.0) for pair in pairs]

    def _scored(self, pairs: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], float]]:
        for first in range(0, len(pairs), AT_ONCE):
            some = pairs[first : first + AT_ONCE]
            _, _, scores = self._scorer.score([one for one, _ in some], [two for _, two in some])
            yield from zip(some, scores.tolist())


def _folder(source: str | Path, revision: str | None) -> Path:
    """The local folder of a checkpoint, downloaded where it is a name on the hub."""
    if is_folder(source):
        folder = Path(source).expanduser().resolve()
    else:
        with naming(source):
            folder = Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED))
    if not any(folder.glob("*.safetensors")):
        raise BackendError(source, "has no *.safetensors", instead_of_pickles(source, revision))
    if "t5" in str(folder) and load_config(folder).model_type not in ("t5", "mt5"):
        # The library takes any path that holds these two letters for a T5.
        raise BackendError(folder, "holds 't5' in its path, and is no T5", "copy it to a folder of another name")
    return folder


def _layer(source: str, layer: int | None, layers: int, known: dict[str, int]) -> tuple[int, str]:
    if layer is not None:
        require(0 <= layer <= layers, "layer", layer, f"must be 0 to {layers} for {source}")
        return layer, "you"
    name = Path(source).name if is_folder(source) else source
    if known.get(name, layers + 1) <= layers:
        return known[name], f"bert-score, for {name}"
    return max(1, round(DEPTH * layers)), "three quarters of the depth: bert-score does not know this model"


def _tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if isinstance(tokenizer, GPT2Tokenizer | RobertaTokenizer):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, add_prefix_space=True)
    if tokenizer.model_max_length > VERY_LONG:
        # RoBERTa counts its positions from after that of padding.
        first = tokenizer.pad_token_id + 1 if isinstance(tokenizer, RobertaTokenizer) else 0
        tokenizer.model_max_length = (getattr(config, "max_position_embeddings", None) or LONGEST) - first
    return tokenizer
