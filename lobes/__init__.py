"""Reusable building blocks of ES4R: torch in, torch out, SpeechBrain relative lengths."""

from es4r_toolkit.lobes.adapters import ConvAdapter, TurnAdapter
from es4r_toolkit.lobes.attention import MultiHeadAttention
from es4r_toolkit.lobes.dialogue_norm import DialogueNorm
from es4r_toolkit.lobes.downsampler import MelDownsampler
from es4r_toolkit.lobes.dual_attention import AffectiveDualAttention
from es4r_toolkit.lobes.emotion_head import EmotionHead
from es4r_toolkit.lobes.energy_strategy import EnergyStrategySelector, Prosody, StrategyChoice
from es4r_toolkit.lobes.fusion import SpeechQueryFusion
from es4r_toolkit.lobes.injection import GatedInjection
from es4r_toolkit.lobes.pooling import StatisticsPooling
from es4r_toolkit.lobes.style_fuser import StyleFuser
from es4r_toolkit.lobes.subsampling import ConvSubsampler

__all__ = [
    "AffectiveDualAttention",
    "ConvAdapter",
    "ConvSubsampler",
    "DialogueNorm",
    "EmotionHead",
    "EnergyStrategySelector",
    "GatedInjection",
    "MelDownsampler",
    "MultiHeadAttention",
    "Prosody",
    "SpeechQueryFusion",
    "StatisticsPooling",
    "StrategyChoice",
    "StyleFuser",
    "TurnAdapter",
]
