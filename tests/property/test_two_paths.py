"""Training and generation see the same, and a step trains what should learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comparisons import LENGTHS, SWITCHES, assert_same, few, spoken, valid_rows
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from es4r_toolkit.errors import BackendError
from es4r_toolkit.losses import response_cross_entropy, response_kl
from es4r_toolkit.masks import frame_counts

LAYOUTS = [("fused",), ("text", "fused"), ("fused", "text"), ("text",)]


class Recorder:
    """Stands around a Hugging Face model and keeps what it was given and what it gave."""

    def __init__(self, model, positions):
        self.calls = []
        self.logits = []
        model.register_forward_pre_hook(lambda _, __, seen: self.keep(seen, positions), with_kwargs=True)
        model.register_forward_hook(lambda _, __, output: self.logits.append(output.logits.detach().clone()))

    def keep(self, seen, positions):
        rows = None if positions.rows is None else positions.rows.clone()
        self.calls.append((seen["inputs_embeds"].detach(), seen["attention_mask"], seen["position_ids"], rows))


@pytest.mark.parametrize("positions", ["frames", "turns"])
@pytest.mark.parametrize("placement", ["replace", "inject"])
@pytest.mark.parametrize("layout", LAYOUTS, ids="+".join)
def test_the_prefix_of_generation_is_the_prefix_of_training(make_pipeline, make_batch, layout, placement, positions):
    scope = "speech" if "fused" in layout else "context"
    pipeline = make_pipeline("plus", context=layout, placement=placement, positions=positions, lora_scope=scope)
    llm, batch = pipeline.generation.llm, make_batch(LENGTHS)
    recorder = Recorder(llm.model, llm.positions)
    pipeline(batch, text_path=False)
    pipeline.generate(batch)
    (trained, trained_valid, trained_places, trained_rows), (given_, valid, places, adapted_rows) = recorder.calls[:2]
    width = given_.shape[1]
    assert_same(trained[:, :width], given_)
    assert torch.equal(trained_valid[:, :width], valid)
    assert torch.equal(trained_places[:, :width], places)
    trained_logits, given_logits = recorder.logits[:2]
    torch.testing.assert_close(given_logits[:, -1], trained_logits[:, 0], rtol=0, atol=1e-5)

    def positions(rows, total):
        mask = torch.zeros(len(batch) * total, dtype=torch.bool)
        mask[rows] = True
        return mask.view(len(batch), total)

    assert torch.equal(positions(trained_rows, trained.shape[1])[:, :width], positions(adapted_rows, width))
    assert not positions(trained_rows, trained.shape[1])[:, width:].any()  # LoRA is off for the reply
    assert all(rows is None for *_, rows in recorder.calls[2:])


@pytest.mark.parametrize("layout", LAYOUTS, ids="+".join)
def test_the_prompt_holds_its_parts_in_order_and_lora_where_asked(cached_pipeline, make_batch, layout):
    pipeline, batch = cached_pipeline("plus", context=layout, lora_scope="context"), make_batch(LENGTHS)
    by_speech = cached_pipeline("plus", context=layout, lora_scope="speech")
    llm, prompts = pipeline.generation.llm, pipeline._prompts(batch)
    heard = [0] * len(batch)
    if "fused" in layout:
        states = pipeline.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
        heard = frame_counts(states.lens, states.states.shape[1]).tolist()
    contexts = valid_rows(pipeline.context(batch)), valid_rows(by_speech.context(batch))
    for prompt, count, (embeds, whole), (_, scope) in zip(prompts, heard, *contexts):
        sizes = {"text": len(prompt.history), "fused": count}
        start = len(prompt.prefix)
        assert_same(embeds[:start], llm.embed(torch.tensor(prompt.prefix)))
        for part in layout:
            content = slice(start, start + sizes[part])
            if part == "text":
                assert_same(embeds[content], llm.embed(torch.tensor(prompt.history)))
            assert whole[content].all()
            assert scope[content].all() if part == "fused" else not scope[content].any()
            start += sizes[part]
        assert_same(embeds[start:], llm.embed(torch.tensor(prompt.suffix)))
        assert int(whole.sum()) == sum(sizes[part] for part in layout)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_a_greedy_reply_alone_equals_the_one_in_a_batch(cached_pipeline, make_batch, switches):
    pipeline = cached_pipeline(**switches)
    together = pipeline.generate(make_batch(LENGTHS))
    alone = [pipeline.generate(make_batch(LENGTHS, [index]))[0] for index in range(3)]
    assert together == alone
    assert len(set(together)) > 1, "replies that are all the same would prove nothing"


def test_a_streamed_reply_is_the_reply(cached_pipeline, make_batch):
    pipeline, batch = cached_pipeline("plus"), make_batch(LENGTHS[:1])
    context = pipeline.context(batch)
    streamed = list(pipeline.generation.stream(context))
    assert pipeline.generation.render.text(streamed) == pipeline.generate(batch)[0]


@few
@given(lengths=spoken, data=st.data())
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_in_single_precision_a_dialogue_has_the_same_logits_alone_and_in_any_batch(
    cached_pipeline, make_batch, switches, lengths, data
):
    pipeline = cached_pipeline(**switches, dtype=torch.float32)
    order = data.draw(st.permutations(range(len(lengths))))
    with torch.no_grad():
        together = pipeline(single(make_batch(lengths, order)))
        for place, index in enumerate(order):
            alone = pipeline(single(make_batch(lengths, [index])))
            for found, expected in ((together.speech, alone.speech), (together.text, alone.text)):
                difference = found[place][together.valid[place]] - expected[0][alone.valid[0]]
                assert difference.abs().max() <= 1e-4


def single(batch):
    return replace(batch, waveforms=batch.waveforms.float())


def test_the_losses_of_a_batch_are_the_token_weighted_mean_of_those_alone(cached_pipeline, make_batch):
    pipeline = cached_pipeline("plus")

    def losses(order):
        paths = pipeline(make_batch(LENGTHS, order))
        tokens = int(paths.valid.sum())
        entropy = response_cross_entropy(paths.speech, paths.targets, paths.valid)
        divergence = response_kl(paths.speech, paths.text, paths.valid)
        return tokens, entropy.item(), divergence.item()

    alone = [losses([index]) for index in range(3)]
    tokens, *together = losses(None)
    assert tokens == sum(count for count, *_ in alone)
    for place, found in enumerate(together):
        assert found == pytest.approx(sum(row[0] * row[1 + place] for row in alone) / tokens, rel=1e-5)


def test_the_text_path_hears_nothing_and_runs_without_lora(make_pipeline, make_batch):
    noisy, plain = make_pipeline("plus", noise=0.2), make_pipeline("plus", noise=0)
    batch = make_batch(LENGTHS)
    paths, base = noisy(batch), plain(batch)
    assert torch.equal(paths.text, base.text)
    assert not torch.allclose(paths.speech, base.speech)
    assert not paths.text.requires_grad


# -- one step of training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_a_step_trains_what_should_learn_and_leaves_the_backbones(make_pipeline, make_batch, switches):
    pipeline = make_pipeline(**switches).train()
    frozen = {name: weight.clone() for name, weight in pipeline.named_parameters() if not weight.requires_grad}
    before = {name: weight.clone() for name, weight in pipeline.trained_state().items()}
    assert all("encoder." in name or "llm.model" in name for name in frozen)
    optimizer = torch.optim.AdamW([weight for weight in pipeline.parameters() if weight.requires_grad], lr=1e-2)
    paths = pipeline(make_batch(LENGTHS))
    loss = response_cross_entropy(paths.speech, paths.targets, paths.valid)
    (loss + response_kl(paths.speech, paths.text, paths.valid)).backward()
    for name, weight in pipeline.named_parameters():
        if not weight.requires_grad:
            assert weight.grad is None, name
            continue
        assert weight.grad is not None, name
        # What a speech position asks in the last layer is read by no reply; a zero gradient, but no missing one.
        unread = ".layers.1.self_attn.q_proj.lora_" in name or ".layers.1.self_attn.o_proj.lora_" in name
        assert bool(weight.grad.abs().max() > 0) is not unread, name
    for stage in ("understanding.downsampler", "understanding.dual_attention", "generation.fusion", "lora_A"):
        assert any(stage in name for name in before)
    optimizer.step()
    after = {**dict(pipeline.named_parameters()), **pipeline.trained_state()}
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())
    assert all(not torch.equal(after[name], weight) for name, weight in before.items())


def test_a_frozen_encoder_stays_in_eval_mode(make_pipeline):
    pipeline = make_pipeline("plus").train()
    assert pipeline.understanding.downsampler.training
    assert not any(module.training for module in pipeline.understanding.encoder.modules())
    assert not any(module.training for module in pipeline.generation.llm.model.model.norm.modules())


def test_a_pipeline_that_hears_nothing_trains_nothing_of_its_ears(make_pipeline, make_batch):
    pipeline = make_pipeline("plus", context=("text",), lora_scope="context")
    assert all("lora_" in name for name in pipeline.trained_state())
    paths = pipeline(make_batch(LENGTHS))
    response_cross_entropy(paths.speech, paths.targets, paths.valid).backward()
    assert all(weight.grad is not None for weight in pipeline.parameters() if weight.requires_grad)


def test_starting_weights_fill_what_they_name_and_leave_the_rest(make_pipeline, tmp_path):
    other, fresh = make_pipeline(), make_pipeline(noise=0)
    ears = {name: weight for name, weight in other.trained_state().items() if ".downsampler." in name}
    before = {name: weight.clone() for name, weight in fresh.trained_state().items()}
    save_file(ears, tmp_path / "ears.safetensors")
    fresh.start_from(tmp_path / "ears.safetensors")
    for name, weight in fresh.trained_state().items():
        assert torch.equal(weight, ears.get(name, before[name])), name
    assert len(ears) > 8
    assert not torch.equal(
        before["understanding.downsampler.norm.weight"], ears["understanding.downsampler.norm.weight"]
    )
    save_file({"nobody.weight": torch.ones(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(BackendError, match="holds nobody"):
        fresh.start_from(tmp_path / "odd.safetensors")
    save_file({name: weight[:1] for name, weight in ears.items()}, tmp_path / "short.safetensors")
    with pytest.raises(BackendError, match="there and"):
        fresh.start_from(tmp_path / "short.safetensors")


@pytest.mark.parametrize("switches", [*SWITCHES.values(), {"levels": "none", "mode": "none"}, {"levels": "intra"}])
def test_trained_weights_survive_saving(make_pipeline, make_batch, tmp_path, switches):
    trained, fresh = make_pipeline(**switches), make_pipeline(**switches, noise=0)
    batch = make_batch(LENGTHS)
    trained.train()(batch, text_path=False)  # running statistics move
    expected = trained.eval()(batch, text_path=False).speech
    assert not torch.allclose(fresh(batch, text_path=False).speech, expected)
    trained.save_trained(tmp_path / "trained.safetensors")
    fresh.load_trained(tmp_path / "trained.safetensors")
    torch.testing.assert_close(fresh(batch, text_path=False).speech, expected, rtol=0, atol=0)
