"""What must hold of the lobes for any dialogue: neither padding, nor neighbours, nor order change what they give."""

from __future__ import annotations

import pytest
import torch
from comparisons import WIDTH, assert_same, dialogues, flat, frames_of, many, rows
from hypothesis import given
from hypothesis import strategies as st

from es4r_toolkit.lobes import (
    AffectiveDualAttention,
    ConvAdapter,
    EnergyStrategySelector,
    MelDownsampler,
    SpeechQueryFusion,
    StyleFuser,
)

HEADS = 2
BARE = {"residual": False, "share_levels": True, "recency": 0}
RESIDUAL = {"residual": True, "share_levels": False, "recency": 2}


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
@given(counts=dialogues, form=st.sampled_from([BARE, RESIDUAL]), data=st.data())
def test_permuting_the_frames_of_a_turn_permutes_its_own_intra_turn_output_and_changes_no_other(
    stirred, counts, form, data
):
    attention = stirred(AffectiveDualAttention(WIDTH, HEADS, "intra", **form).double(), 0.5).eval()
    turns, lens, sizes = flat(counts)
    turn = data.draw(st.integers(0, len(turns) - 1))
    frames = [count for dialogue in counts for count in dialogue]
    order = data.draw(st.permutations(range(frames[turn])))
    shuffled = turns.clone()
    shuffled[turn, : frames[turn]] = turns[turn, order]
    before, after = (torch.cat(rows(*attention(given_, lens, sizes))).split(frames) for given_ in (turns, shuffled))
    for index, (found, known) in enumerate(zip(after, before)):
        assert_same(found, known[order] if index == turn else known)


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
