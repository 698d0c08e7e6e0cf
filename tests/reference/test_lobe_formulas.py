"""Each lobe against the formula of the paper, written once more as plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from es4r_toolkit.lobes import (
    AffectiveDualAttention,
    ConvAdapter,
    DialogueNorm,
    EnergyStrategySelector,
    MelDownsampler,
    SpeechQueryFusion,
    StatisticsPooling,
    StyleFuser,
    TurnAdapter,
)
from es4r_toolkit.lobes.energy_strategy import energy_change

WIDTH, HEADS = 6, 3
TURN_FRAMES = [4, 2, 5, 1]  # of four turns
DIALOGUES = [3, 1]


@pytest.fixture
def turns():
    generator = torch.Generator().manual_seed(0)
    padded = torch.zeros(4, 5, WIDTH, dtype=torch.float64)
    for turn, count in zip(padded, TURN_FRAMES):
        turn[:count] = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    return padded


LENS, SIZES = torch.tensor(TURN_FRAMES).double() / 5, torch.tensor(DIALOGUES)


def linear(layer, vector):
    return layer.weight.detach().numpy() @ vector + layer.bias.detach().numpy()


def layer_norm(layer, vector):
    scaled = (vector - vector.mean()) / math.sqrt(((vector - vector.mean()) ** 2).mean() + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def softmax(scores):
    exponents = np.exp(np.array(scores) - max(scores))
    return exponents / exponents.sum()


def attention_loop(attention, queries, keys):
    """Lists of vectors -> (one output a query, one row of mean weights a query): Eq. 2-5's attention, head by head."""
    size = WIDTH // HEADS
    both = [linear(attention.key_value, key) for key in keys]
    outputs, weights = [], []
    for query in queries:
        asked = linear(attention.query, query)
        mixed, rows = [], []
        for head in range(HEADS):
            place = slice(head * size, (head + 1) * size)
            row = softmax([asked[place] @ pair[:WIDTH][place] / math.sqrt(size) for pair in both])
            mixed.append(sum(share * pair[WIDTH:][place] for share, pair in zip(row, both)))
            rows.append(row)
        outputs.append(linear(attention.output, np.concatenate(mixed)))
        weights.append(np.mean(rows, axis=0))
    return outputs, weights


def attend_loop(attention, norm, frames):
    if norm is None:
        return attention_loop(attention, frames, frames)[0]
    normed = [layer_norm(norm, frame) for frame in frames]
    return [frame + change for frame, change in zip(frames, attention_loop(attention, normed, normed)[0])]


def dual_attention_loop(lobe, turns):
    """Eq. 2-3 turn by turn, concatenation, Eq. 4 over the dialogue."""
    dialogues, start = [], 0
    for size in DIALOGUES:
        frames = []
        for index in range(start, start + size):
            turn = list(turns[index, : TURN_FRAMES[index]].numpy())
            if lobe.intra is not None:
                turn = attend_loop(lobe.intra, lobe.intra_norm, turn)
            if lobe.recency is not None:
                age = min(start + size - 1 - index, lobe.recency.num_embeddings - 1)
                turn = [frame + lobe.recency.weight[age].detach().numpy() for frame in turn]
            frames += turn
        if lobe.inter is not None:
            frames = attend_loop(lobe.inter, lobe.inter_norm, frames)
        dialogues.append(np.stack(frames))
        start += size
    return dialogues


PAPER = {"residual": False, "share_levels": True, "recency": 0}
PLUS = {"residual": True, "share_levels": False, "recency": 2}


@pytest.mark.parametrize("levels", ["both", "intra", "inter", "none"])
@pytest.mark.parametrize("preset", [PAPER, PLUS], ids=["paper", "plus"])
def test_dual_attention_is_equations_2_to_4(turns, stirred, preset, levels):
    lobe = stirred(AffectiveDualAttention(WIDTH, HEADS, levels, **preset).double(), 0.5)
    context, lens = lobe(turns, LENS, SIZES)
    expected = dual_attention_loop(lobe, turns)
    assert context.shape == (2, 11, WIDTH)
    np.testing.assert_allclose(lens * 11, [11, 1])
    for row, dialogue in zip(context.detach(), expected):
        np.testing.assert_allclose(row[: len(dialogue)], dialogue, rtol=1e-10, atol=1e-12)
        assert (row[len(dialogue) :] == 0).all()


@pytest.mark.parametrize("residual", [False, True], ids=["paper", "plus"])
def test_fusion_is_equation_5(stirred, residual):
    lobe = stirred(SpeechQueryFusion(WIDTH, HEADS, residual).double(), 0.5)
    generator = torch.Generator().manual_seed(1)
    speech, text = (torch.randn(2, size, WIDTH, generator=generator, dtype=torch.float64) for size in (4, 5))
    spoken, written = [4, 2], [3, 5]
    fused, weights = lobe(speech, text, torch.tensor([1.0, 0.5]), torch.tensor([0.6, 1.0]), return_weights=True)
    for row in range(2):
        queries, keys = list(speech[row, : spoken[row]].numpy()), list(text[row, : written[row]].numpy())
        if residual:
            asked = [layer_norm(lobe.speech_norm, query) for query in queries]
            outputs, shares = attention_loop(lobe.attention, asked, [layer_norm(lobe.text_norm, key) for key in keys])
            outputs = [query + output for query, output in zip(queries, outputs)]
        else:
            outputs, shares = attention_loop(lobe.attention, queries, keys)
        np.testing.assert_allclose(fused[row, : spoken[row]].detach(), outputs, rtol=1e-10, atol=1e-12)
        assert (fused[row, spoken[row] :] == 0).all()
        np.testing.assert_allclose(weights[row, : spoken[row], : written[row]].detach(), shares, rtol=1e-10)
        assert (weights[row, :, written[row] :] == 0).all()


# -- convolutions -----------------------------------------------------------------------------------------------------


def gelu(value):
    return value * 0.5 * (1 + np.vectorize(math.erf)(value / math.sqrt(2)))


def gated_convolution_loop(layer, frames):
    """Conv1d of kernel 5, padding 2 and the layer's stride over frames (T, F), then a GLU."""
    weight, bias, stride = layer.weight.detach().numpy(), layer.bias.detach().numpy(), layer.stride[0]
    outputs = []
    for centre in range(0, len(frames), stride):
        total = bias.copy()
        for tap in range(5):
            if 0 <= centre + tap - 2 < len(frames):
                total = total + weight[:, :, tap] @ frames[centre + tap - 2]
        value, gate = np.split(total, 2)
        outputs.append(value / (1 + np.exp(-gate)))
    return np.stack(outputs)


@pytest.mark.parametrize("frames", [1, 2, 9, 16])
def test_the_downsampler_is_three_gated_convolutions_and_a_residual_feed_forward(stirred, frames):
    lobe = stirred(MelDownsampler(WIDTH).double(), 0.3)
    mels = torch.randn(1, frames, WIDTH, dtype=torch.float64)
    hidden = mels[0].numpy()
    for layer in lobe.subsampler.layers:
        hidden = gated_convolution_loop(layer, hidden)
    first, _, second = lobe.feed_forward
    expected = [layer_norm(lobe.norm, frame + linear(second, gelu(linear(first, frame)))) for frame in hidden]
    output, _ = lobe(mels, torch.ones(1))
    np.testing.assert_allclose(output[0].detach(), expected, rtol=1e-9, atol=1e-12)


def test_the_adapter_is_gated_convolutions_a_norm_and_a_projection(stirred):
    lobe = stirred(ConvAdapter(WIDTH, 4, inner_size=5, strides=(2, 3)).double(), 0.3)
    states = torch.randn(1, 13, WIDTH, dtype=torch.float64)
    hidden = states[0].numpy()
    for layer in lobe.subsampler.layers:
        hidden = gated_convolution_loop(layer, hidden)
    expected = [linear(lobe.projection, layer_norm(lobe.norm, frame)) for frame in hidden]
    np.testing.assert_allclose(lobe(states, torch.ones(1))[0][0].detach(), expected, rtol=1e-9, atol=1e-12)


def statistics_loop(frames):
    """Mean and standard deviation of each column of a list of vectors."""
    columns = list(zip(*frames))
    means = [sum(column) / len(column) for column in columns]
    squares = [sum((value - mean) ** 2 for value in column) / len(column) for column, mean in zip(columns, means)]
    return np.array([*means, *map(math.sqrt, squares)])


def test_pooling_gives_means_and_deviations_of_the_valid_frames(turns):
    pooled = StatisticsPooling()(turns, LENS)
    for row, turn, count in zip(pooled, turns, TURN_FRAMES):
        np.testing.assert_allclose(row, statistics_loop(turn[:count].tolist()), rtol=1e-9, atol=1e-12)


def test_the_turn_adapter_projects_statistics_that_are_normalised_across_turns(stirred, turns):
    lobe = stirred(TurnAdapter(WIDTH, 3, 4, dropout=0.0).double(), 0.3).train()
    states, counts = torch.randn(4, 7, 3, dtype=torch.float64), [7, 1, 3, 6]
    first, _, second = lobe.frame_projection
    found = lobe(turns, LENS, states, torch.tensor(counts).double() / 7).detach()
    manner = [statistics_loop(turn[:frames].tolist()) for turn, frames in zip(turns, TURN_FRAMES)]
    content = [statistics_loop(heard[:made].tolist()) for heard, made in zip(states, counts)]
    for row, frames, made in zip(
        found, normalised(lobe.frame_norm, manner), normalised(lobe.state_norm, content), strict=True
    ):
        expected = linear(second, gelu(linear(first, frames))) + lobe.state_projection.weight.detach().numpy() @ made
        np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-12)


def normalised(norm, vectors):
    """Each number less its mean over the turns, over its deviation, then scaled and shifted."""
    columns = np.array(vectors)
    deviations = np.sqrt(((columns - columns.mean(axis=0)) ** 2).mean(axis=0) + norm.eps)
    scaled = (columns - columns.mean(axis=0)) / deviations
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


# -- energies, strategies and styles ----------------------------------------------------------------------------------


def test_the_change_of_energy_is_equation_9():
    energies = [3.0, 7.0, 4.0, 9.0, 1.0, 6.0]
    sizes = [4, 2]
    # Eq. 9 counts the reply as turn k: its history is e_1 ... e_{k-1}, and the change (e_{k-1} - e_1) / (k - 2).
    expected, start = [], 0
    for size in sizes:
        history, k = energies[start : start + size], size + 1
        expected.append((history[k - 2] - history[0]) / (k - 2))
        start += size
    assert energy_change(torch.tensor(energies), torch.tensor(sizes)).tolist() == expected


def test_the_energy_of_a_waveform_is_the_mean_l2_norm_of_its_linear_mel_spectrogram():
    sample_rate, size, hop, bins = 16000, 64, 32, 7
    selector = EnergyStrategySelector({"one": {}}, sample_rate=sample_rate, n_fft=size, hop=hop, n_mels=bins).double()
    wave = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    padded = np.concatenate([np.zeros(size // 2), wave, np.zeros(size // 2 + hop)])
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / size) for n in range(size)]
    edges = [
        700 * (10 ** (2595 * math.log10(1 + 8000 / 700) * step / (bins + 1) / 2595) - 1) for step in range(bins + 2)
    ]
    norms = []
    for start in range(0, len(wave), hop):
        spectrum = np.abs(np.fft.rfft(padded[start : start + size] * window))
        mel = []
        for low, middle, high in zip(edges, edges[1:], edges[2:]):
            total = 0.0
            for index, amplitude in enumerate(spectrum):
                hertz = index * sample_rate / size
                if low < hertz <= middle:
                    total += amplitude * (hertz - low) / (middle - low)
                elif middle < hertz < high:
                    total += amplitude * (high - hertz) / (high - middle)
            mel.append(total)
        norms.append(math.sqrt(sum(value**2 for value in mel)))
    expected = sum(norms) / len(norms)
    energies = selector.energies(torch.from_numpy(wave)[None], torch.ones(1))
    # The filters are made in single precision.
    assert energies.item() == pytest.approx(expected, rel=1e-5)


def test_styles_are_fused_by_equation_10():
    styles = np.random.default_rng(0).normal(size=(5, 3))
    energies, sizes = [2.0, 0.5, 1.0, 4.0, 3.0], [3, 2]
    expected, shares, start = [], [], 0
    for size in sizes:
        inverse = [1 / energy for energy in energies[start : start + size]]
        weights = [value / sum(inverse) for value in inverse]
        expected.append(sum(weight * style for weight, style in zip(weights, styles[start : start + size])))
        shares += weights
        start += size
    fused, weights = StyleFuser()(torch.from_numpy(styles), torch.tensor(energies).double(), torch.tensor(sizes))
    np.testing.assert_allclose(weights, shares, rtol=1e-12)
    np.testing.assert_allclose(fused, expected, rtol=1e-12)


def test_dialogue_norm_takes_the_mean_of_each_bin_over_the_dialogue(turns):
    found = DialogueNorm()(turns + 3, torch.tensor(TURN_FRAMES), SIZES).numpy()
    frames = turns.numpy() + 3
    for members in ([0, 1, 2], [3]):
        spoken = [frames[turn][place] for turn in members for place in range(TURN_FRAMES[turn])]
        for turn in members:
            for place in range(5):
                inside = place < TURN_FRAMES[turn]
                expected = frames[turn][place] - sum(spoken) / len(spoken) if inside else np.zeros(WIDTH)
                np.testing.assert_allclose(found[turn][place], expected, atol=1e-12)
