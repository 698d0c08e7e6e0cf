"""A trained model in use: whole answers, streams of events, and conversations."""

from es4r_toolkit.inference.conversation import Conversation
from es4r_toolkit.inference.loading import SHIPPED_MODEL
from es4r_toolkit.inference.responder import EmpathyResponder
from es4r_toolkit.inference.response import NOTICE, Explanation, Response
from es4r_toolkit.inference.streaming import (
    AudioChunk,
    End,
    Event,
    ReplyStream,
    Strategy,
    TextDelta,
    Timings,
    Transcript,
)

__all__ = [
    "NOTICE",
    "SHIPPED_MODEL",
    "AudioChunk",
    "Conversation",
    "EmpathyResponder",
    "End",
    "Event",
    "Explanation",
    "ReplyStream",
    "Response",
    "Strategy",
    "TextDelta",
    "Timings",
    "Transcript",
]
