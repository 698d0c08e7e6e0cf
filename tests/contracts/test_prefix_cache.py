"""A prefix that was read is not read again, and what is written does not change by it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, Qwen2Config

from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.prefix_cache import PrefixCache

LENGTH, STEPS = 12, 6


@pytest.fixture(scope="module")
def lm(qwen3_folder, stirred) -> CausalLM:
    model = CausalLM(qwen3_folder, lora={"rank": 2, "alpha": 4, "dropout": 0.0})
    return stirred(model, 0.4).eval()


@pytest.fixture
def embeds() -> torch.Tensor:
    return torch.randn(1, LENGTH, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def read(lm, monkeypatch) -> list[int]:
    """How many positions each forward pass of the model reads."""
    seen: list[int] = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    yield seen
    hook.remove()


def written(lm: CausalLM, embeds: torch.Tensor, adapted: torch.Tensor | None = None, cache=None) -> list[int]:
    return list(lm.stream(embeds, torch.ones(embeds.shape[:2], dtype=torch.bool), adapted, STEPS, cache=cache))


def adapted_from(start: int, length: int) -> torch.Tensor:
    return torch.arange(length)[None] >= start


def test_a_context_that_grew_is_read_from_where_it_grew(lm, embeds, read):
    cache = lm.prefix_cache()
    written(lm, embeds[:, :8], adapted_from(6, 8), cache)
    read.clear()
    after = written(lm, embeds, adapted_from(6, LENGTH), cache)
    assert read[0] == LENGTH - 8
    assert after == written(lm, embeds, adapted_from(6, LENGTH))


def test_what_follows_a_change_is_read_again(lm, embeds, read):
    """The paper's and our layout alike: speech stands behind the text, and moves as the text grows."""
    cache = lm.prefix_cache()
    written(lm, embeds, adapted_from(6, LENGTH), cache)
    changed = embeds.clone()
    changed[:, 5] += 1
    read.clear()
    assert written(lm, changed, adapted_from(6, LENGTH), cache) == written(lm, changed, adapted_from(6, LENGTH))
    assert read[0] == LENGTH - 5


def test_positions_where_adapters_wake_up_are_read_again(lm, embeds, read):
    cache = lm.prefix_cache()
    written(lm, embeds, adapted_from(9, LENGTH), cache)
    read.clear()
    assert written(lm, embeds, adapted_from(4, LENGTH), cache) == written(lm, embeds, adapted_from(4, LENGTH))
    assert read[0] == LENGTH - 4


def test_the_same_context_again_reads_its_last_position_alone(lm, embeds, read):
    cache = lm.prefix_cache()
    first = written(lm, embeds, None, cache)
    read.clear()
    assert written(lm, embeds, None, cache) == first
    assert read[0] == 1


def test_logits_behind_a_kept_prefix_are_those_of_the_whole(lm, embeds):
    """Token by token alike could hide a drift that only flips a close decision."""
    cache = lm.prefix_cache()
    adapted = adapted_from(6, LENGTH)
    for length in range(7, LENGTH + 1):
        written(lm, embeds[:, :length], adapted[:, :length], cache)
    _, known = cache.start(embeds, adapted)
    assert known == LENGTH - 1
    seen = []
    hook = lm.model.register_forward_hook(lambda _, __, output: seen.append(output.logits[:, -1]))
    fresh = PrefixCache(lm.model.config)
    for kept in (cache, fresh):
        next(lm.stream(embeds, torch.ones(1, LENGTH, dtype=torch.bool), adapted, 1, cache=kept))
    hook.remove()
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)


def test_a_reply_that_was_broken_off_leaves_a_cache_that_can_be_used(lm, embeds):
    cache = lm.prefix_cache()
    tokens = lm.stream(embeds, torch.ones(1, LENGTH, dtype=torch.bool), None, STEPS, cache=cache)
    next(tokens)
    tokens.close()
    assert written(lm, embeds, None, cache) == written(lm, embeds)


def test_a_reply_broken_off_between_two_layers_is_read_anew(lm, embeds, read):
    cache = lm.prefix_cache()
    second = lm.model.base_model.layers[1]

    def stop(*_: object) -> None:
        raise RuntimeError

    hook = second.register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError):
        written(lm, embeds, None, cache)
    hook.remove()
    read.clear()
    assert written(lm, embeds, None, cache) == written(lm, embeds)
    assert read[0] == LENGTH


@pytest.mark.parametrize("window", [None, 4], ids=["far", "sliding window"])
def test_layers_that_forget_have_nothing_to_give_back(tokenizer, tmp_path, embeds, window):
    """Qwen2's sliding layers hold the last positions alone."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
    sliding = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0} if window else {}
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=4, **sizes, **sliding)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = CausalLM(tmp_path).eval()
    cache = model.prefix_cache()
    written(model, embeds[:, :8], None, cache)
    assert cache.start(embeds, None)[1] == (0 if window else 8)
    assert written(model, embeds, None, cache) == written(model, embeds)


def test_another_family_shares_its_prefix_too(tokenizer, tmp_path, embeds):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "head_dim": 8}
    torch.manual_seed(0)
    config = GemmaConfig(vocab_size=len(tokenizer), num_attention_heads=4, num_key_value_heads=2, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = CausalLM(tmp_path).eval()
    cache = model.prefix_cache()
    written(model, embeds[:, :8], None, cache)
    assert cache.start(embeds, None)[1] == 8
    written(model, embeds[:, :8], None, cache)
    assert written(model, embeds, None, cache) == written(model, embeds)
