"""Language models of many families keep their own logits, though the last layer is computed only where it is read."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from es4r_toolkit.backends.causal_lm import CausalLM, position_ids
from es4r_toolkit.backends.partial_lora import lora_parameters

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
OLDER = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
MODELS = {
    "qwen3": SIZES,
    "qwen2": SIZES,
    "llama": SIZES,
    "mistral": {**SIZES, "sliding_window": 5},
    "gemma2": {**SIZES, "sliding_window": 5, "query_pre_attn_scalar": 8},
    "gemma3_text": {**SIZES, "sliding_window": 5, "query_pre_attn_scalar": 8},
    "phi3": SIZES,
    "olmo2": SIZES,
    "mixtral": {**SIZES, **EXPERTS},
    "qwen3_moe": {**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {**SIZES, **EXPERTS, "sliding_window": 5},
    "gptj": OLDER,
    "gpt2": OLDER,
    "falcon": {key: value for key, value in SIZES.items() if key != "head_dim"},
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
}
# Their layers have parts of other names.
LEFT_WHOLE = {"gptj", "gpt2", "falcon", "opt"}


@pytest.fixture(scope="module", params=MODELS)
def family(request, tokenizer, tmp_path_factory):
    """The folder of a small model of random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(request.param, vocab_size=len(tokenizer), **MODELS[request.param], **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_the_last_logits_and_their_gradients_are_the_models_own(family, again):
    plain = AutoModelForCausalLM.from_pretrained(family, dtype=torch.float32)
    lm = CausalLM(family, freeze=False, gradient_checkpointing=again).train()
    plain.eval(), lm.model.eval()
    torch.manual_seed(0)
    embeds, valid = torch.randn(2, 12, 32), torch.ones(2, 12, dtype=torch.bool)
    valid[1, :4] = False
    ours, theirs = embeds.clone().requires_grad_(), embeds.clone().requires_grad_()
    found = lm.logits(ours, valid, None, last=5)
    expected = plain(inputs_embeds=theirs, attention_mask=valid.long(), position_ids=position_ids(valid)).logits[:, -5:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    torch.testing.assert_close(ours.grad[valid], theirs.grad[valid], atol=1e-5, rtol=1e-4)
    own = dict(plain.named_parameters())
    for name, weight in lm.model.named_parameters():
        torch.testing.assert_close(weight.grad, own[name].grad, atol=1e-5, rtol=1e-4)


def test_greedy_replies_are_the_models_own(family):
    plain = AutoModelForCausalLM.from_pretrained(family, dtype=torch.float32).eval()
    lm = CausalLM(family).eval()
    torch.manual_seed(0)
    embeds, valid = torch.randn(1, 12, 32), torch.ones(1, 12, dtype=torch.bool)
    options = {"max_new_tokens": 6, "min_new_tokens": 1, "do_sample": False, "eos_token_id": lm.stop_ids}
    expected = plain.generate(inputs_embeds=embeds, attention_mask=valid.long(), **options)[0].tolist()
    stop = next((place for place, token in enumerate(expected) if token in lm.stop_ids), len(expected))
    assert lm.generate(embeds, valid, None, max_new_tokens=6) == [expected[:stop]]


@pytest.mark.parametrize("family", [name for name in MODELS if name not in LEFT_WHOLE], indirect=True)
def test_the_last_layer_works_at_the_end_only(family):
    lm = CausalLM(family).eval()
    seen = []
    part = next(lm.model.base_model.layers[-1].mlp.children())
    hook = part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    lm.logits(torch.randn(2, 12, 32), torch.ones(2, 12, dtype=torch.bool), None, last=5)
    hook.remove()
    assert [shape[:-1].numel() for shape in seen] == [10]


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"], indirect=True)
def test_what_learned_a_step_answers_the_same_when_loaded(family):
    """Of the families that the recipes name."""
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0}
    lm = CausalLM(family, lora=lora).train()
    torch.manual_seed(0)
    embeds, valid = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool)
    adapted = torch.zeros(2, 9, dtype=torch.bool)
    adapted[:, 3:6] = True
    before = lm.logits(embeds, valid, adapted, 4)
    optimizer = torch.optim.SGD(lora_parameters(lm).values(), lr=50.0)
    before.square().mean().backward()
    optimizer.step()
    learned = lm.eval().logits(embeds, valid, adapted, 4)
    assert not torch.equal(learned, before)
    again = CausalLM(family, lora=lora).eval()
    for name, weight in lora_parameters(again).items():
        weight.data.copy_(lora_parameters(lm)[name].data)
    torch.testing.assert_close(again.logits(embeds, valid, adapted, 4), learned, rtol=0, atol=0)
    assert again.generate(embeds, valid, adapted, 6) == lm.generate(embeds, valid, adapted, 6)


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"], indirect=True)
def test_a_saved_model_is_the_same_one(family, tmp_path):
    lm = CausalLM(family).eval()
    lm.save(tmp_path)
    embeds, valid = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool)
    found, expected = (model.logits(embeds, valid, None, 9) for model in (CausalLM(tmp_path).eval(), lm))
    assert torch.equal(found, expected)
