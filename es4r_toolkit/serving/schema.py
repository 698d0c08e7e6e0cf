"""What goes in and what comes out, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from es4r_toolkit.dialogue import SPEAKER
from es4r_toolkit.inference.pieces import UNITS

Words = Annotated[str, StringConstraints(strip_whitespace=True)]


class _Asked(BaseModel):
    """Strict: a number is no string, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ReplyOptions(_Asked):
    """How to reply; what is left out is as the model has it."""

    strategy: str | None = Field(None, max_length=100, description="How to speak, whatever the energies say.")
    unit: Literal[UNITS] = Field("sentence", description="What the voice waits for; a clause starts earlier.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy.")
    top_k: int | None = Field(None, ge=0, le=100_000, description="0 is all.")
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10, description="1 is none.")

    @property
    def sampling(self) -> dict[str, float]:
        """What the language model is told."""
        return self.model_dump(exclude={"strategy", "unit"}, exclude_none=True)


class UploadedTurn(_Asked):
    """A turn whose recording is a part of its own."""

    role: Literal["speaker", "listener"] = Field(description="Who seeks empathy, or who gives it.")
    text: Words | None = Field(None, description="Its words; left out, the model's recognizer writes them down.")


class SpokenTurn(UploadedTurn):
    """A turn with its recording."""

    audio: str = Field(
        min_length=1,
        description="A WAV, FLAC, OGG or MP3 file in base64, without line breaks.",
        json_schema_extra={"format": "byte"},
    )


class UploadedDialogue(_Asked):
    """What was said so far; each turn's recording is a part named audio, in the same order."""

    turns: list[UploadedTurn] = Field(min_length=1, description="Oldest first; at least one is the speaker's.")
    options: ReplyOptions = ReplyOptions()

    @model_validator(mode="after")
    def _has_a_speaker(self) -> UploadedDialogue:
        if not any(turn.role == SPEAKER for turn in self.turns):
            raise ValueError("has no turn of the speaker, whom a reply is for")
        return self


class SpokenDialogue(UploadedDialogue):
    """What was said so far."""

    turns: list[SpokenTurn] = Field(min_length=1, description="Oldest first; at least one is the speaker's.")


class ProsodyOut(BaseModel):
    """How the reply is spoken; 1 or 0 leaves the voice as it is."""

    rate: float
    expressiveness: float
    pitch_shift: float = Field(description="Semitones.")
    energy: float = Field(description="dB.")


class TranscriptOut(BaseModel):
    """The words of a history turn."""

    role: str
    text: str
    source: str = Field(description="transcript, or the recognizer that wrote it down.")


class ReplyOut(BaseModel):
    """A reply, and how it came about."""

    text: str
    cut_off: bool = Field(description="Whether the reply is as long as the model may write, without a stop token.")
    strategy: str
    strategy_weights: dict[str, float]
    energy_change: float = Field(description="Mean change of energy from turn to turn.")
    relative_energy_change: float
    prosody: ProsodyOut
    energies: list[float] = Field(description="Of each turn.")
    style_weights: list[float] = Field(description="Share of each turn in the style of the reply.")
    honours: list[str] = Field(description="Which parts of the prosody the voice follows.")
    transcripts: list[TranscriptOut]
    dropped_turns: int = Field(description="Oldest turns that the model's window had no room for.")
    forgotten_turns: int = Field(description="0: each request brings its whole dialogue.")
    timings: dict[str, float] = Field(description="Seconds, one after another without a gap.")
    notice: str
    sample_rate: int = Field(description="Hz.")
    audio: str = Field(description="A 16-bit WAV file in base64.", json_schema_extra={"format": "byte"})


class FaultOut(BaseModel):
    """Why there is no reply."""

    status: int
    code: str = Field(description="For programs; the same for the same cause.")
    item: str = Field(description="Which part of the request.")
    problem: str
    mend: str = Field(description="What to do about it.")


class StateOut(BaseModel):
    """Whether the server lives, or takes requests."""

    status: str


class ModelOut(BaseModel):
    """What can be asked of this server."""

    version: str = Field(description="Of the toolkit.")
    strategies: list[str]
    recognizer: str | None = Field(description="Who writes down turns without text; null: every turn needs its text.")
    sample_rate: int = Field(description="Of the replies (Hz).")
    limits: dict[str, int | float]
    notice: str
