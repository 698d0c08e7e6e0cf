"""A model folder, local or from a hub, to a pipeline with its trained weights."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.hparams import build_model
from es4r_toolkit.pipeline import EmpathyPipeline

SHIPPED_MODEL = Path(__file__).parents[1] / "assets" / "affectprobe-small"
MODEL_FILE, WEIGHTS_FILE = "model.yaml", "trained.safetensors"


def load_pipeline(
    source: str | Path | None, savedir: str | Path | None, revision: str | None, trust_remote_code: bool
) -> EmpathyPipeline:
    """Build what a model folder describes, and load its weights; as ``EmpathyResponder.from_hparams`` says."""
    folder = _folder(SHIPPED_MODEL if source is None else source, savedir, revision)
    file = folder / MODEL_FILE
    pipeline = build_model(file, trust_remote_code).get("pipeline")
    if not isinstance(pipeline, EmpathyPipeline):
        raise ConfigError(file, "builds no pipeline", "name the model/ folder of a training run")
    pipeline.load_trained(folder / WEIGHTS_FILE)
    return pipeline


def _folder(source: str | Path, savedir: str | Path | None, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or str(source)[:1] in ".~" or str(source).count("/") != 1:
            raise BackendError(source, "no such model folder", "name the model/ folder of a training run")
        wanted = ["*.yaml", "*.json", "*.jinja", "*.safetensors"]
        try:
            folder = Path(snapshot_download(str(source), revision=revision, local_dir=savedir, allow_patterns=wanted))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
            reason = str(fault).strip().split("\n")[0][:200]
            raise BackendError(source, f"is no folder, and the hub gives none ({reason})", "check the name") from fault
    for name in (MODEL_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise BackendError(folder, f"has no {name}", "name the model/ folder of a training run")
    return folder
