"""PocketsphinxRecognizer: English from a wheel that carries its own model; nothing to download."""

from __future__ import annotations

import threading

from torch import Tensor

from es4r_toolkit.errors import BackendError

RATE = 16000  # Hz, that of its acoustic model
SILENCE = 1e-4  # -80 dB of full scale


class PocketsphinxRecognizer:
    """Writes down English with CMU Sphinx's small model.

    It is right about clear speech and loses words in noise, accents and
    emotion: good enough to try a dialogue without transcripts, no stand-in
    for Whisper. The model is read when first asked, in under a second.

    Raises
    ------
    BackendError
        When first asked, if the wheel is missing.
    """

    name = identity = "pocketsphinx"
    sample_rate = RATE

    def __init__(self) -> None:
        self._decoder = None
        self._lock = threading.Lock()

    def transcribe(self, waveform: Tensor) -> str:
        """A recording (samples,) within [-1, 1] at ``sample_rate`` -> its words in lower case, "" where it hears none.

        What was heard before changes nothing.
        """
        if not bool((waveform.abs() > SILENCE).any()):
            # Its language model would find a word in nothing.
            return ""
        samples = (waveform.detach().cpu().float().clamp(-1, 1) * 32767).short().numpy()
        with self._lock:
            decoder = self._loaded()
            decoder.reinit_feat()
            decoder.start_utt()
            decoder.process_raw(samples.tobytes(), full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
        return found.hypstr if found is not None else ""

    def _loaded(self) -> object:
        if self._decoder is None:
            try:
                from pocketsphinx import Decoder
            except ImportError as error:
                raise BackendError(
                    "pocketsphinx", "is not installed", "pip install 'es4r-toolkit[asr]', or write the transcripts"
                ) from error
            self._decoder = Decoder(samprate=RATE, loglevel="FATAL")
        return self._decoder
