"""The two losses of two-path training, on reply positions only, and an auxiliary one for labelled turns."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from es4r_toolkit.errors import require
from es4r_toolkit.lobes.emotion_head import UNLABELLED


def response_cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy of the reply's tokens on the speech path (ES4R Sec. 3.2).

    Arguments
    ---------
    logits : Tensor (B, R, V)
    targets : Tensor (B, R) of int
    valid : Tensor (B, R) of bool
        True at reply tokens, the end token among them.

    Returns
    -------
    Tensor ()
        In nats a token.

    Example
    -------
    >>> import torch
    >>> logits = torch.zeros(1, 2, 4)
    >>> response_cross_entropy(logits, torch.tensor([[1, 0]]), torch.tensor([[True, False]])).exp()
    tensor(4.)
    """
    return functional.cross_entropy(logits[valid].float(), targets[valid])


def response_kl(
    speech_logits: Tensor, text_logits: Tensor, valid: Tensor, temperature: float = 2.0, direction: str = "speech_text"
) -> Tensor:
    """Mean divergence of the speech path from the text path over the reply's tokens.

    ES4R Sec. 3.2: L_KL(speech path || text path), at temperature 2 (released
    code), the text path detached.

    Arguments
    ---------
    speech_logits, text_logits : Tensor (B, R, V)
    valid : Tensor (B, R) of bool
    temperature : float
        Both distributions are softened by it; the result is not rescaled.
    direction : str
        ``speech_text`` is KL(speech || text), as the paper writes it;
        ``text_speech`` is KL(text || speech), as distillation is often done.

    Returns
    -------
    Tensor ()
        In nats a token.

    Example
    -------
    >>> import torch
    >>> logits = torch.randn(1, 3, 5)
    >>> response_kl(logits, logits, torch.ones(1, 3, dtype=torch.bool)).abs() < 1e-6
    tensor(True)
    """
    require(temperature > 0, "temperature", temperature, "must be positive")
    require(direction in ("speech_text", "text_speech"), "direction", direction, "must be speech_text or text_speech")
    speech = (speech_logits[valid].float() / temperature).log_softmax(dim=-1)
    text = (text_logits[valid].detach().float() / temperature).log_softmax(dim=-1)
    first, second = (speech, text) if direction == "speech_text" else (text, speech)
    return (first.exp() * (first - second)).sum(dim=-1).mean()


def emotion_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled turns' emotions (ours); zero where no turn has a label.

    Arguments
    ---------
    logits : Tensor (N, K)
    targets : Tensor (N,) of int
        ``UNLABELLED`` (-100) where a turn has none.

    Returns
    -------
    Tensor ()
        In nats a turn.

    Example
    -------
    >>> import torch
    >>> emotion_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -100])).exp()
    tensor(4.)
    """
    labelled = (targets != UNLABELLED).sum()
    return functional.cross_entropy(logits.float(), targets, reduction="sum") / labelled.clamp(min=1)
