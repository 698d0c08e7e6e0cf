"""Lobes refuse what they cannot do, begin as they say they begin, and hold their shapes."""

from __future__ import annotations

import pytest
import torch

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.lobes import (
    AffectiveDualAttention,
    ConvAdapter,
    ConvSubsampler,
    EnergyStrategySelector,
    GatedInjection,
    MelDownsampler,
    MultiHeadAttention,
    SpeechQueryFusion,
    StatisticsPooling,
    StyleFuser,
    TurnAdapter,
)
from es4r_toolkit.lobes.attention import attend
from es4r_toolkit.lobes.dual_attention import LEVELS, split_turns
from es4r_toolkit.masks import attention_bias, frame_counts, pack, relative_lengths, share_states

TABLE = {"comfort": {"to": 0.0}, "encourage": {"from": 0.0}}


# -- constructor checks name the argument ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: MultiHeadAttention(10, 3), "num_heads"),
        (lambda: MultiHeadAttention(10, 0), "num_heads"),
        (lambda: MultiHeadAttention(8, 2, dropout=1.0), "dropout"),
        (lambda: AffectiveDualAttention(8, 2, levels="all"), "levels"),
        (lambda: AffectiveDualAttention(8, 3), "num_heads"),
        (lambda: AffectiveDualAttention(8, 2, recency=-1), "recency"),
        (lambda: SpeechQueryFusion(8, 2, mode="concat"), "mode"),
        (lambda: ConvSubsampler(8, 8, kernel_size=4), "kernel_size"),
        (lambda: ConvSubsampler(8, 8, strides=()), "strides"),
        (lambda: MelDownsampler(8, strides=(2, 0)), "strides"),
        (lambda: ConvAdapter(8, 8, kernel_size=2), "kernel_size"),
        (lambda: EnergyStrategySelector({}), "strategies"),
        (lambda: EnergyStrategySelector(TABLE, mode="soft"), "mode"),
        (lambda: EnergyStrategySelector(TABLE, turns="listener"), "turns"),
        (lambda: EnergyStrategySelector(TABLE, softness=0), "softness"),
        (lambda: EnergyStrategySelector(TABLE, trim_db=0), "trim_db"),
        (lambda: StyleFuser(silence=0), "silence"),
        (lambda: StyleFuser(silence=1), "silence"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(build, argument):
    with pytest.raises(ConfigError, match=argument) as caught:
        build()
    assert "got" in str(caught.value)


@pytest.mark.parametrize("sizes", [[2], [4], [3, 0], [2, 2], [4, -1]])
def test_dialogue_sizes_that_do_not_fit_the_turns_are_refused(sizes):
    sizes = torch.tensor(sizes)
    turns, lens = torch.rand(3, 5, 8), torch.ones(3)
    with pytest.raises(ConfigError, match="turns_per_dialogue"):
        AffectiveDualAttention(8, 2)(turns, lens, sizes)
    with pytest.raises(ConfigError, match="turns_per_dialogue"):
        StyleFuser()(torch.rand(3, 4), torch.ones(3), sizes)
    with pytest.raises(ConfigError, match="turns_per_dialogue"):
        EnergyStrategySelector(TABLE)(torch.ones(3), sizes)


def test_a_length_a_turn_is_asked_for():
    with pytest.raises(ConfigError, match="turn_lens"):
        AffectiveDualAttention(8, 2)(torch.rand(3, 5, 8), torch.ones(2), torch.tensor([3]))


@pytest.mark.parametrize("text", [(3, 4, 8), (2, 4, 6)])
def test_fusion_refuses_a_text_of_another_batch_or_width(text):
    with pytest.raises(ConfigError, match="text"):
        SpeechQueryFusion(8, 2)(torch.rand(2, 3, 8), torch.rand(text))


# -- attention --------------------------------------------------------------------------------------------------------


def test_a_masked_key_changes_nothing_and_gets_no_weight():
    attention = MultiHeadAttention(8, 2).double()
    query, key = torch.rand(1, 3, 8).double(), torch.rand(1, 4, 8).double()
    valid = torch.tensor([[True, True, False, True]])
    before, weights = attention(query, key, valid, return_weights=True)
    key[0, 2] = 1e6
    torch.testing.assert_close(attention(query, key, valid)[0], before, rtol=0, atol=0)
    assert (weights[0, :, 2] == 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 3).double())


def test_a_row_without_a_valid_key_stays_finite():
    output, weights = MultiHeadAttention(8, 2)(torch.rand(1, 2, 8), torch.rand(1, 3, 8), torch.zeros(1, 3).bool(), True)
    assert output.isfinite().all()
    assert weights.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [5, 16, 64])
@pytest.mark.parametrize("mask", ["none", "added", "bool"])
def test_attention_is_softmax_of_scaled_products_however_it_is_computed(dtype, width, mask):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, width, generator=generator) for length in (4, 6, 6))
    allowed = torch.rand(2, 1, 4, 6, generator=generator) > 0.3
    allowed[..., 0] = True
    allowed |= torch.tensor(mask == "none")
    added = torch.zeros(2, 1, 4, 6).masked_fill(~allowed, -1e9)
    bias = {"none": None, "added": added.to(dtype), "bool": allowed}[mask]
    scores = query @ key.transpose(2, 3) * 0.25 + added
    found = attend(query.to(dtype), key.to(dtype), value.to(dtype), bias, scale=0.25)
    assert found.dtype == dtype
    exact = dtype == torch.float32
    expected = scores.softmax(dim=-1) @ value
    torch.testing.assert_close(found.float(), expected, rtol=1e-5 if exact else 0.05, atol=1e-5 if exact else 0.05)


def test_attention_in_bfloat16_stays_finite_where_no_key_is_allowed():
    parts = [torch.randn(1, 2, 4, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    mixed = attend(*parts, torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    mixed.float().square().sum().backward()
    assert bool(mixed.isfinite().all())
    assert all(bool(part.grad.isfinite().all()) for part in parts)


def test_attention_weights_are_asked_for():
    assert MultiHeadAttention(8, 2)(torch.rand(1, 2, 8), torch.rand(1, 3, 8), torch.ones(1, 3).bool())[1] is None


def test_dropout_acts_in_training_only():
    attention = MultiHeadAttention(8, 2, dropout=0.9)
    frames, valid = torch.rand(1, 20, 8), torch.ones(1, 20).bool()
    attention.eval()
    torch.testing.assert_close(attention(frames, frames, valid)[0], attention(frames, frames, valid)[0])
    attention.train()
    assert not torch.equal(attention(frames, frames, valid)[0], attention(frames, frames, valid)[0])


# -- dual attention ---------------------------------------------------------------------------------------------------


def joined(turns, lens, sizes):
    """The valid frames of each dialogue, one turn after the other, by a plain loop."""
    counts = [round(float(share) * turns.shape[1]) for share in lens]
    rows, start = [], 0
    for size in sizes:
        rows.append(torch.cat([turns[start + k, : counts[start + k]] for k in range(size)]))
        start += size
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.mark.parametrize("levels", LEVELS)
def test_untrained_residual_dual_attention_only_joins_the_turns(levels):
    turns, lens = torch.rand(3, 10, 8), torch.tensor([1.0, 0.3, 0.6])
    attention = AffectiveDualAttention(8, 2, levels, recency=0)
    context, context_lens = attention(turns, lens, torch.tensor([2, 1]))
    torch.testing.assert_close(context, joined(turns, lens, [2, 1]), rtol=0, atol=0)
    assert frame_counts(context_lens, context.shape[1]).tolist() == [13, 6]


def test_level_none_has_no_weight_and_the_bare_form_no_norm():
    assert not list(AffectiveDualAttention(8, 2, "none").parameters())
    bare = AffectiveDualAttention(8, 2, residual=False, share_levels=True, recency=0)
    assert bare.intra is bare.inter
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in bare.modules())


def test_intra_attention_stays_inside_a_turn_and_inter_attention_does_not(stirred):
    turns, lens = torch.rand(2, 4, 8).double(), torch.ones(2).double()
    changed = turns.clone()
    changed[1] += 1
    for levels, reaches in (("intra", False), ("inter", True)):
        attention = stirred(AffectiveDualAttention(8, 2, levels, residual=False, recency=0).double())
        before, after = (attention(frames, lens, torch.tensor([2]))[0][0, :4] for frames in (turns, changed))
        assert bool((before - after).abs().max() > 1e-6) is reaches


def test_recency_tells_a_turn_from_the_same_turn_spoken_earlier_and_clamps_the_oldest(stirred):
    same = torch.rand(1, 3, 8).expand(5, 3, 8)
    context, _ = stirred(AffectiveDualAttention(8, 2, "inter", recency=3))(same, torch.ones(5), torch.tensor([5]))
    turns = context.reshape(5, 3, 8)
    assert not torch.allclose(turns[4], turns[3])
    assert not torch.allclose(turns[3], turns[2])
    torch.testing.assert_close(turns[0], turns[2])  # both of three turns ago or more


def test_split_turns_undoes_the_join():
    turns, lens, sizes = torch.rand(4, 6, 3), torch.tensor([1.0, 0.5, 1 / 6, 2 / 3]), torch.tensor([1, 3])
    counts = frame_counts(lens, 6)
    context, _ = AffectiveDualAttention(3, 1, "none")(turns, lens, sizes)
    split = split_turns(context, counts, sizes)
    for turn, back, count in zip(turns, split, counts):
        torch.testing.assert_close(back[:count], turn[:count], rtol=0, atol=0)
        assert (back[count:] == 0).all()


# -- fusion -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"mode": "none"}, {"mode": "none", "residual": False}, {"residual": True}])
def test_fusion_switched_off_or_untrained_passes_the_speech_and_clears_its_padding(options):
    speech, text = torch.rand(2, 4, 8), torch.rand(2, 3, 8)
    fused = SpeechQueryFusion(8, 2, **options)(speech, text, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(fused[0], speech[0], rtol=0, atol=0)
    torch.testing.assert_close(fused[1, :2], speech[1, :2], rtol=0, atol=0)
    assert (fused[1, 2:] == 0).all()


def test_fusion_without_attention_has_no_weights_to_show():
    fused, weights = SpeechQueryFusion(8, 2, mode="none")(torch.rand(1, 4, 8), torch.rand(1, 3, 8), return_weights=True)
    assert fused.shape == (1, 4, 8)
    assert weights is None


# -- subsampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 64])
def test_the_downsampler_rounds_up_so_that_no_turn_vanishes(frames):
    output, lens = MelDownsampler(8)(torch.rand(2, frames, 8), torch.tensor([1.0, 1 / frames]))
    assert output.shape[1] == -(-frames // 8)
    assert frame_counts(lens, output.shape[1]).tolist() == [-(-frames // 8), 1]
    assert (output[1, 1:] == 0).all()


def test_the_downsampler_keeps_the_signal_at_initialisation():
    """Two different turns must not come out as nearly the same frames, or nothing downstream can tell them apart."""
    torch.manual_seed(0)
    loud, quiet = MelDownsampler(80)(torch.randn(2, 80, 80), torch.ones(2))[0].detach()
    assert torch.nn.functional.cosine_similarity(loud.flatten(), quiet.flatten(), dim=0) < 0.5


def test_the_adapter_gives_the_language_models_width_and_clears_padding():
    positions, lens = ConvAdapter(8, 12, inner_size=6)(torch.rand(2, 20, 8), torch.tensor([1.0, 0.2]))
    assert positions.shape == (2, 3, 12)
    assert frame_counts(lens, 3).tolist() == [3, 1]
    assert (positions[1, 1:] == 0).all()


# -- one position a turn ---------------------------------------------------------------------------------------------


def test_pooling_a_single_frame_has_no_deviation_and_a_finite_gradient():
    frames = torch.rand(1, 3, 4, requires_grad=True)
    pooled = StatisticsPooling()(frames, torch.tensor([1 / 3]))
    assert torch.equal(pooled[0, :4], frames[0, 0])
    assert (pooled[0, 4:] == 0).all()
    pooled.sum().backward()
    assert frames.grad[0, 0].tolist() == [1.0] * 4
    assert (frames.grad[0, 1:] == 0).all()


def test_padding_reaches_no_pooled_number_even_where_it_is_not_finite():
    frames = torch.ones(1, 3, 2)
    frames[0, 1:] = torch.nan
    assert StatisticsPooling()(frames, torch.tensor([1 / 3])).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_a_turn_too_short_for_a_state_of_its_own_still_has_a_position():
    lens = torch.tensor([1.0, 0.5])
    found = TurnAdapter(4, 3, 6)(torch.rand(2, 2, 4), lens, torch.rand(2, 1, 3), torch.tensor([1.0, 0.0]))
    assert found.shape == (2, 6)
    assert bool(found.isfinite().all())


def test_a_turn_trained_on_alone_is_normalised_by_what_was_heard_before(stirred):
    adapter, lens = stirred(TurnAdapter(4, 3, 6, dropout=0.0), 0.3).train(), torch.ones(5)
    adapter(3 + torch.rand(5, 2, 4), lens, torch.rand(5, 2, 3), lens)
    alone = 3 + torch.rand(1, 2, 4), lens[:1], torch.rand(1, 2, 3), lens[:1]
    running = adapter.frame_norm.running_mean.clone()
    assert bool((running > 0.2).any())
    learning = adapter(*alone)
    assert torch.equal(adapter.frame_norm.running_mean, running)
    torch.testing.assert_close(learning, adapter.eval()(*alone))


@pytest.mark.parametrize(
    ("frames", "dialogues", "states", "expected"),
    [
        ([4, 4], [2], [4], [2, 2]),
        ([1, 1, 1], [3], [2], [1, 1, 0]),
        ([3, 5, 7], [1, 2], [2, 6], [2, 3, 3]),
        ([5], [1], [50], [50]),
    ],
)
def test_a_dialogues_states_are_shared_out_to_its_turns_whole(frames, dialogues, states, expected):
    shares = share_states(torch.tensor(frames), torch.tensor(dialogues), torch.tensor(states))
    assert shares.tolist() == expected
    assert [part.sum() for part in shares.split(dialogues)] == states


# -- injection --------------------------------------------------------------------------------------------------------


def test_injection_adds_each_attended_frame_to_its_own_share_of_the_turn():
    inject = GatedInjection(1)
    torch.nn.init.ones_(inject.gate)
    attended = torch.tensor([[[1.0], [2.0]], [[5.0], [9.0]]])
    output = inject(torch.zeros(2, 4, 1), torch.tensor([1.0, 0.5]), attended, torch.tensor([2, 1]))
    assert output.squeeze(2).tolist() == [[1, 1, 2, 2], [5, 5, 0, 0]]


def test_the_gate_of_an_untrained_injection_has_a_gradient():
    inject = GatedInjection(2)
    inject(torch.rand(1, 4, 2), torch.ones(1), torch.rand(1, 2, 2), torch.tensor([2])).sum().backward()
    assert (inject.gate.grad > 0).all()


def test_injection_refuses_a_turn_without_frames():
    with pytest.raises(ConfigError, match="counts"):
        GatedInjection(2)(torch.rand(1, 4, 2), torch.ones(1), torch.rand(1, 2, 2), torch.tensor([0]))


# -- masks ------------------------------------------------------------------------------------------------------------


def test_a_length_survives_the_round_trip_through_a_float():
    for longest in (1, 3, 7, 999, 3000, 480000):
        counts = torch.unique(torch.linspace(1, longest, 97).long())
        assert torch.equal(frame_counts(relative_lengths(counts, longest), longest), counts)


def test_a_length_outside_the_sequence_is_held_to_it():
    assert frame_counts(torch.tensor([1.3, -0.2]), 10).tolist() == [10, 0]


def test_packing_keeps_every_frame_in_order():
    frames = torch.arange(1.0, 7.0)
    padded, valid = pack(frames, torch.tensor([1, 0, 3, 2]))
    assert padded.tolist() == [[1, 0, 0], [0, 0, 0], [2, 3, 4], [5, 6, 0]]
    assert torch.equal(padded[valid], frames)


def test_attention_bias_blocks_padding_and_opens_a_row_of_nothing_but_padding():
    bias = attention_bias(torch.tensor([[True, False], [False, False]]))
    assert (bias[0, 0, 0] < -1e30).tolist() == [False, True]
    assert (bias[1] == 0).all()


# -- style fusion -----------------------------------------------------------------------------------------------------


def test_a_quieter_turn_weighs_more_and_by_the_inverse_of_its_energy():
    weights = StyleFuser().weights(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3]))
    torch.testing.assert_close(weights, torch.tensor([4 / 7, 2 / 7, 1 / 7]))


def test_a_silent_turn_gives_no_style():
    styles = torch.tensor([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0]])
    fused, weights = StyleFuser()(styles, torch.tensor([2.0, 2.0, 0.0]), torch.tensor([3]))
    assert weights.tolist() == [0.5, 0.5, 0.0]
    assert fused.tolist() == [[0.5, 0.5]]


def test_a_turn_of_nearly_no_energy_counts_as_silent():
    weights = StyleFuser(silence=0.01).weights(torch.tensor([1.0, 0.009, 0.02]), torch.tensor([3]))
    assert weights[1] == 0
    torch.testing.assert_close(weights[2], torch.tensor(1 / 0.02) / (1 + 1 / 0.02))


def test_a_dialogue_of_silence_weighs_all_turns_the_same():
    weights = StyleFuser().weights(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([2, 1]))
    assert weights.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_style_weights_do_not_depend_on_the_recording_level(scale):
    energies, sizes = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3])
    expected = StyleFuser().weights(energies, sizes)
    torch.testing.assert_close(StyleFuser().weights(energies * scale, sizes), expected)


@pytest.mark.parametrize("energy", [-1.0, float("nan"), float("inf")])
def test_an_energy_that_is_none_is_refused(energy):
    with pytest.raises(ConfigError, match="energies"):
        StyleFuser()(torch.rand(2, 3), torch.tensor([1.0, energy]), torch.tensor([2]))


def test_half_precision_styles_stay_half_precision():
    fused, _ = StyleFuser()(torch.rand(2, 3).half(), torch.ones(2), torch.tensor([2]))
    assert fused.dtype == torch.float16
