"""What must hold for any dialogue: neither padding, nor neighbours, nor order change what is heard and said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.lobes import (
    AffectiveDualAttention,
    ConvAdapter,
    EnergyStrategySelector,
    MelDownsampler,
    SpeechQueryFusion,
    StyleFuser,
)
from es4r_toolkit.losses import response_cross_entropy, response_kl
from es4r_toolkit.masks import frame_counts, relative_lengths

few = settings(max_examples=12, deadline=None)
many = settings(max_examples=40, deadline=None)
WIDTH, HEADS = 8, 2
BARE = {"residual": False, "share_levels": True, "recency": 0}
RESIDUAL = {"residual": True, "share_levels": False, "recency": 2}

# Frames of each turn, by dialogue.
dialogues = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=4)


def frames_of(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(counts: list[list[int]], order=None, extra=0):
    """Turns (N, T, F), lengths (N,) and sizes (B,); ``extra`` frames of rubbish as padding."""
    chosen = range(len(counts)) if order is None else order
    turns = [frames_of(count, 50 * index + place) for index in chosen for place, count in enumerate(counts[index])]
    longest = max(map(len, turns)) + extra
    padded = torch.full((len(turns), longest, WIDTH), 1e3, dtype=torch.float64)
    for row, turn in zip(padded, turns):
        row[: len(turn)] = turn
    lens = relative_lengths(torch.tensor([len(turn) for turn in turns]), longest)
    return padded, lens, torch.tensor([len(counts[index]) for index in chosen])


def rows(sequence: torch.Tensor, lens: torch.Tensor) -> list[torch.Tensor]:
    """The valid part of each row; what lies behind it must be zero."""
    counts = frame_counts(lens, sequence.shape[1]).tolist()
    assert all((row[count:] == 0).all() for row, count in zip(sequence, counts))
    return [row[:count].detach() for row, count in zip(sequence, counts)]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


# -- lobes -----------------------------------------------------------------------------------------------------------


@many
@given(counts=dialogues, form=st.sampled_from([BARE, RESIDUAL]), data=st.data())
def test_a_dialogue_has_the_same_context_alone_and_in_any_batch_order_and_padding(stirred, counts, form, data):
    attention = stirred(AffectiveDualAttention(WIDTH, HEADS, **form).double(), 0.5).eval()
    order = data.draw(st.permutations(range(len(counts))))
    together = rows(*attention(*flat(counts, order, extra=data.draw(st.integers(0, 3)))))
    for index, found in zip(order, together):
        (alone,) = rows(*attention(*flat(counts, [index])))
        assert_same(found, alone)


@many
@given(counts=dialogues)
def test_every_valid_frame_arrives_once_in_order_and_nothing_else(counts):
    joined = rows(*AffectiveDualAttention(WIDTH, HEADS, "none")(*flat(counts, extra=2)))
    for index, (found, turns) in enumerate(zip(joined, counts)):
        expected = torch.cat([frames_of(count, 50 * index + place) for place, count in enumerate(turns)])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@many
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4), extra=st.integers(0, 9))
@pytest.mark.parametrize(
    "build", [lambda: MelDownsampler(WIDTH), lambda: ConvAdapter(WIDTH, 5, 6)], ids=["downsampler", "adapter"]
)
def test_a_padded_sequence_is_subsampled_as_if_alone(stirred, build, counts, extra):
    lobe = stirred(build().double(), 0.3)
    turns, lens, _ = flat([[count] for count in counts], extra=extra)
    for index, found in enumerate(rows(*lobe(turns, lens))):
        (alone,) = rows(*lobe(turns[index : index + 1, : counts[index]], torch.ones(1)))
        assert_same(found, alone)


@many
@given(
    speech=st.lists(st.integers(1, 6), min_size=2, max_size=2),
    text=st.lists(st.integers(1, 7), min_size=2, max_size=2),
    residual=st.booleans(),
)
def test_fusion_neither_hears_nor_reads_padding(stirred, speech, text, residual):
    fusion = stirred(SpeechQueryFusion(WIDTH, HEADS, residual).double(), 0.5)
    heard, heard_lens, _ = flat([[count] for count in speech], extra=2)
    read, read_lens, _ = flat([[count] for count in text], extra=1)
    for index, found in enumerate(rows(fusion(heard, read, heard_lens, read_lens), heard_lens)):
        alone = fusion(heard[index, : speech[index]][None], read[index, : text[index]][None])
        assert_same(found, alone[0].detach())


@many
@given(counts=dialogues, data=st.data())
def test_strategy_and_style_of_a_dialogue_do_not_depend_on_its_neighbours(counts, data):
    selector = EnergyStrategySelector({"down": {"to": 0.0}, "up": {"from": 0.0}}, mode="continuous").double()
    styles = StyleFuser()
    order = data.draw(st.permutations(range(len(counts))))
    turns, lens, sizes = flat(counts, order, extra=2)
    energies = selector.energies(turns, lens)
    choices, (fused, weights) = selector(energies, sizes), styles(energies[:, None] ** 2, energies, sizes)
    sums = torch.stack([share.sum() for share in weights.split(sizes.tolist())])
    assert_same(sums, torch.ones(len(order), dtype=torch.float64))
    start = 0
    for place, index in enumerate(order):
        stop = start + len(counts[index])
        size = torch.tensor([stop - start])
        own = selector.energies(turns[start:stop], lens[start:stop])
        (choice,) = selector(own, size)
        assert choice.name == choices[place].name
        assert choice.weights == pytest.approx(choices[place].weights)
        assert_same(fused[place], styles(own[:, None] ** 2, own, size)[0][0])
        start = stop


# -- from waveform to what the language model sees --------------------------------------------------------------------

SWITCHES = {
    "paper": {"preset": "paper"},
    "plus": {"preset": "plus"},
    "plus, injected": {"preset": "plus", "placement": "inject"},
    "paper, injected": {"preset": "paper", "placement": "inject"},
    "plus, injected, by turn": {"preset": "plus", "placement": "inject", "positions": "turns"},
    "paper, by turn": {"preset": "paper", "positions": "turns"},
}
# Samples of each turn, by dialogue: from a single sample to 1.5 s, above the tiny encoder's window of 1 s.
spoken = st.lists(
    st.lists(st.one_of(st.integers(1, 900), st.integers(901, 24000)), min_size=1, max_size=3), min_size=1, max_size=3
)


def valid_rows(context):
    """Embeddings and LoRA positions of each prompt, without padding."""
    parts = zip(context.embeds, context.valid, context.adapted)
    return [(row[valid].detach(), adapted[valid]) for row, valid, adapted in parts]


@few
@given(lengths=spoken, data=st.data())
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_a_dialogue_has_the_same_prompt_alone_and_in_any_batch_and_order(
    cached_pipeline, make_batch, switches, lengths, data
):
    pipeline = cached_pipeline(**switches)
    order = data.draw(st.permutations(range(len(lengths))))
    together = valid_rows(pipeline.context(make_batch(lengths, order)))
    for index, (found, adapted) in zip(order, together):
        ((alone, scope),) = valid_rows(pipeline.context(make_batch(lengths, [index])))
        assert_same(found, alone)
        assert torch.equal(adapted, scope)


@few
@given(lengths=spoken)
def test_silence_appended_as_padding_changes_no_prompt(cached_pipeline, make_batch, lengths):
    pipeline, batch = cached_pipeline("plus"), make_batch(lengths)
    counts = frame_counts(batch.wav_lens, batch.waveforms.shape[1])
    waveforms = torch.nn.functional.pad(batch.waveforms, (0, 3217), value=0.7)
    padded = pipeline.understanding(waveforms, relative_lengths(counts, waveforms.shape[1]), batch.turns_per_dialogue)
    plain = pipeline.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
    for found, expected in zip(rows(padded.states, padded.lens), rows(plain.states, plain.lens)):
        assert_same(found, expected)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_turn_is_heard(cached_pipeline, make_batch, switches):
    pipeline, batch = cached_pipeline(**switches), make_batch([[3000, 900, 5000], [800, 2100]])
    # Features are made without gradient, so hearing is shown by what a change of one turn changes.
    before = valid_rows(pipeline.context(batch))
    for turn, owner in enumerate([0, 0, 0, 1, 1]):
        waveforms = batch.waveforms.clone()
        waveforms[turn, :800] = waveforms[turn, :800].flip(0)
        states = pipeline.understanding(waveforms, batch.wav_lens, batch.turns_per_dialogue)
        after = valid_rows(pipeline.generation.context(pipeline._prompts(batch), states))
        changed = [bool((found - known).abs().max() > 1e-7) for (found, _), (known, _) in zip(after, before)]
        assert changed == [owner == 0, owner == 1], f"turn {turn}"


def test_what_the_window_cannot_hold_are_whole_oldest_turns_counted(cached_pipeline, make_batch, caplog):
    pipeline = cached_pipeline("plus")
    # 24000 samples are 150 mel frames, 38 of the downsampler's: two turns fit into the window of 100, three do not.
    long = [24000] * 5
    batch = make_batch([long, [1000]])
    states = pipeline.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
    assert states.dropped.tolist() == [3, 0]
    assert "3 oldest turns" in caplog.text
    kept = pipeline.understanding(batch.waveforms[3:5], batch.wav_lens[3:5], torch.tensor([2]))
    assert_same(rows(states.states, states.lens)[0], rows(kept.states, kept.lens)[0])
    assert pipeline.context(batch).dropped.tolist() == [3, 0]


def test_a_newest_turn_that_passes_the_window_is_refused_not_cut(cached_pipeline, make_batch):
    with pytest.raises(ConfigError, match="newest turn: takes 113 frames"):
        cached_pipeline("plus").context(make_batch([[500, 72000]]))


def test_a_turn_longer_than_the_window_is_injected_in_pieces(cached_pipeline, make_batch):
    pipeline, batch = cached_pipeline("plus", placement="inject"), make_batch([[36000, 500]])
    states = pipeline.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
    # 225 mel frames in pieces of 100, 100 and 25, and 4 more; encoded at half and adapted at half of that rate.
    assert states.states.shape[1] == -(-(50 + 50 + 13 + 2) // 2)
    assert states.dropped.tolist() == [0]


@few
@given(lengths=spoken)
def test_an_untrained_injection_equals_the_plain_encoder(make_pipeline, make_batch, lengths):
    pipeline, batch = make_pipeline("plus", noise=0, placement="inject"), make_batch(lengths)
    understanding = pipeline.understanding
    found = understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
    window = understanding.encoder.max_frames
    counts = frame_counts(batch.wav_lens, batch.waveforms.shape[1]).tolist()
    turn = iter(range(len(counts)))
    for row, size in zip(rows(found.states, found.lens), batch.turns_per_dialogue.tolist()):
        pieces = []
        for index in [next(turn) for _ in range(size)]:
            mels, _ = understanding.encoder.features(batch.waveforms[index, : counts[index]][None], torch.ones(1))
            pieces += [understanding.encoder.encode(part, torch.ones(1))[0] for part in mels.split(window, dim=1)]
        joined = torch.cat(pieces, dim=1)
        assert_same(row, understanding.adapter(joined, torch.ones(1))[0][0].detach())


@few
@given(lengths=spoken)
@pytest.mark.parametrize("placement", ["replace", "inject"])
def test_by_turn_the_language_model_gets_a_position_a_turn(cached_pipeline, make_batch, placement, lengths):
    pipeline = cached_pipeline("plus", placement=placement, positions="turns")
    batch = make_batch(lengths)
    heard = pipeline.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
    expected = batch.turns_per_dialogue - heard.dropped
    assert frame_counts(heard.lens, heard.states.shape[1]).tolist() == expected.tolist()


# -- training and generation see the same -----------------------------------------------------------------------------

LAYOUTS = [("fused",), ("text", "fused"), ("fused", "text"), ("text",)]
LENGTHS = [[3000, 900, 5000], [800], [2100, 4000]]


class Recorder:
    """Stands before a Hugging Face model and keeps what it was given first."""

    def __init__(self, model, positions):
        self.calls = []
        model.register_forward_pre_hook(lambda _, __, seen: self.keep(seen, positions), with_kwargs=True)

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
