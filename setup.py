"""Metadata and dependencies; the package es4r_toolkit.lobes lives in lobes/."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# torch and torchaudio are built for one another: the same minor version, or torchaudio does not load.
CORE = [
    "torch>=2.11,<2.12",
    "torchaudio>=2.11,<2.12",
    "speechbrain>=1.1.2,<1.2",
    "transformers>=5.23,<6",
    "peft>=0.21,<0.22",
    "hyperpyyaml>=1.2.3,<2",
    "sentencepiece>=0.2,<0.3",
    "protobuf>=5",
    "tokenizers>=0.22,<0.24",
    "safetensors>=0.5",
    "numpy>=2",
    "pandas>=3,<4",
    "scipy>=1.15",
    "soundfile>=0.13",
    "typer>=0.20",
    "tqdm>=4.66",
    "matplotlib>=3.10",
    "jinja2>=3.1.6",
    "nltk>=3.9.1",
    "rouge-score>=0.1.2",
    # What huggingface_hub speaks HTTP with.
    "httpx2>=2,<3",
]
# espeak-ng is GPL-3, so nothing of it is a hard dependency.
ESPEAK = ["espeakng-loader>=0.2.4,<0.3"]
# English, with its model in the wheel.
ASR = ["pocketsphinx>=5,<6"]
STYLETTS2 = [*ESPEAK, "munch", "einops", "einops-exts", "pyyaml"]
KOKORO = [*ESPEAK, "loguru", "attrs"]
QUANTIZED = ["bitsandbytes>=0.48", "accelerate>=1.1"]
BERTSCORE = ["bert-score>=0.3.13,<0.4"]
# Praat is GPL-3.
SPEECH_METRICS = ["jiwer>=4,<5", "praat-parselmouth>=0.4.7,<0.5"]
# gradio 6.16 mended a path traversal.
DEMO = [*ESPEAK, *ASR, "gradio>=6.16,<7"]
SERVE = [
    *ESPEAK,
    *ASR,
    "fastapi>=0.165,<1",
    "uvicorn>=0.54,<1",
    "python-multipart>=0.0.34",
    "prometheus-client>=0.26,<1",
]
# Playwright drives the system's Chromium: apt-get install chromium.
TESTS = [
    "pytest>=8",
    "pytest-timeout",
    "pytest-xdist>=3.6",
    "hypothesis",
    "playwright>=1.50",
    "schemathesis>=4.32,<5",
    "ruff",
    "build",
]

setup(
    name="es4r-toolkit",
    version="0.1.0",
    description="Lobes and recipes for empathetic spoken dialogue: hear how something is said, and answer with empathy",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["es4r_toolkit", "es4r_toolkit.*"]), "es4r_toolkit.lobes"],
    package_dir={"es4r_toolkit.lobes": "lobes"},
    package_data={
        "es4r_toolkit": [
            "assets/**/*",
            "demo/*.html",
            "demo/*.css",
            "demo/*.js",
            "metrics/*.yaml",
            "metrics/judge/*.yaml",
            "report/*.html",
        ]
    },
    include_package_data=False,
    install_requires=CORE,
    extras_require={
        "espeak": ESPEAK,
        "asr": ASR,
        "demo": DEMO,
        "serve": SERVE,
        "quantized": QUANTIZED,
        "bertscore": BERTSCORE,
        "speech-metrics": SPEECH_METRICS,
        # kokoro 0.9.4 itself is installed with --no-deps, as `make install` does: of its 45 packages its model needs
        # these.
        "kokoro": KOKORO,
        # styletts2 0.1.6 pins transformers < 5 and never resolves beside the core: it is installed with --no-deps
        # beside these, as `make install` does.
        "styletts2": STYLETTS2,
        "fuzz": ["atheris>=3,<4"],
        "dev": [*STYLETTS2, *KOKORO, *ASR, *QUANTIZED, *BERTSCORE, *SPEECH_METRICS, *DEMO, *SERVE, *TESTS],
    },
    entry_points={"console_scripts": ["es4r=es4r_toolkit.cli:main"]},
)
