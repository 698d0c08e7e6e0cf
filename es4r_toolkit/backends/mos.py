"""MosModel: a model that predicts how natural listeners would find a recording, such as a port of UTMOS."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from es4r_toolkit.errors import BackendError, ConfigError

SUFFIXES = (".pt", ".pth", ".ts", ".jit")


class MosModel:
    """A TorchScript module of signature ``(waveform (1, T), sample_rate) -> score``.

    Published ports of UTMOS (Saeki et al., 2022) are called in this way; one is scripted or traced once, with
    ``torch.jit``, and saved. TorchScript is a program: it is run here with all rights of the user.

    Arguments
    ---------
    source : str or Path
        The file, or a folder with one such file.
    trust_remote_code : bool
        Whether its code may be run.
    device : str
        Where it runs.

    Raises
    ------
    ConfigError
        If its code may not be run.
    BackendError
        If there is no such file, or it is no TorchScript.
    """

    def __init__(self, source: str | Path, trust_remote_code: bool = False, device: str = "cpu"):
        self.path = _file(Path(source).expanduser())
        if not trust_remote_code:
            problem = "is TorchScript, a program that would run with your rights"
            raise ConfigError(self.path, problem, "say --trust-remote-code if you trust where it comes from")
        self.device = device
        try:
            self._model = torch.jit.load(str(self.path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as fault:
            reason = str(fault).strip().split("\n")[0][:200]
            raise BackendError(
                self.path, f"is no TorchScript that can be loaded ({reason})", "save it again"
            ) from fault

    @torch.no_grad()
    def score(self, waveform: Tensor, sample_rate: int) -> float:
        """A recording (samples,) within [-1, 1] at its own rate (Hz) -> its predicted mean opinion score.

        Raises
        ------
        BackendError
            If the module fails, or gives anything but one finite number.
        """
        try:
            found = self._model(waveform[None].to(self.device), sample_rate)
            score = float(found.squeeze())
        except (torch.jit.Error, RuntimeError, AttributeError, TypeError) as fault:
            reason = str(fault).strip().split("\n")[-1][:200]
            problem = f"cannot score a waveform (1, {len(waveform)}) at {sample_rate} Hz ({reason})"
            raise BackendError(self.path, problem, "give (waveform (1, T), sample_rate) -> score") from fault
        if not math.isfinite(score):
            raise BackendError(self.path, f"gave {score}", "give a model of finite scores")
        return score


def _file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(path for path in source.glob("*") if path.suffix in SUFFIXES) if source.is_dir() else []
    if len(found) != 1:
        held = f"holds {len(found)} of {', '.join(SUFFIXES)}" if source.is_dir() else "does not exist"
        raise BackendError(source, held, "name the TorchScript file")
    return found[0]
