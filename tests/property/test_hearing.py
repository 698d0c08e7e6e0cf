"""From waveform to what the language model sees: the same alone and in any batch, order and padding."""

from __future__ import annotations

import pytest
import torch
from comparisons import LENGTHS, SWITCHES, assert_same, few, rows, spoken, valid_rows
from hypothesis import given
from hypothesis import strategies as st

from es4r_toolkit.errors import DialogueError
from es4r_toolkit.masks import frame_counts, relative_lengths


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
    assert pipeline.context(batch).heard.dropped.tolist() == [3, 0]


@pytest.mark.parametrize("normalization", ["none", "dialogue"])
def test_only_the_norm_takes_out_what_all_turns_of_a_dialogue_share(make_pipeline, make_batch, normalization):
    understanding, batch = make_pipeline("plus", normalization=normalization).understanding, make_batch(LENGTHS)
    mels, counts = understanding.features(batch.waveforms, batch.wav_lens)
    before = understanding.listen(mels, counts, batch.turns_per_dialogue).attended
    channel = torch.linspace(-1, 1, mels.shape[2], dtype=mels.dtype).repeat(len(mels), 1)
    together = understanding.listen(mels + channel[:, None], counts, batch.turns_per_dialogue).attended
    channel[1] += 0.5
    apart = understanding.listen(mels + channel[:, None], counts, batch.turns_per_dialogue).attended
    assert bool((together - before).abs().max() < 1e-9) is (normalization == "dialogue")
    assert (apart - together).abs().max() > 1e-3


def test_a_newest_turn_that_passes_the_window_is_refused_not_cut(cached_pipeline, make_batch):
    with pytest.raises(DialogueError, match="0, newest turn: takes 113 frames"):
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
