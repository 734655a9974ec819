"""What travels with a model and what stays at home; which of several weights are meant; adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.surgery.checkpoint.belongings import PRIVATE, TRAINING, file_reason
from lostattn.surgery.checkpoint.manifest import read_patched
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import unpatch
from lostattn.surgery.cli import main
from lostattn.surgery.hub.contents import read_contents
from lostattn.surgery.patch import patch_checkpoint, prepare
from lostattn.surgery.spec import PatchSpec

SECRETS = [
    ".env",
    ".env.local",
    "prod.env",
    ".netrc",
    "_netrc",
    "netrc",
    ".aws/credentials",
    ".ssh/id_rsa",
    ".git/config",
    ".huggingface/token",
    ".hf_token",
    "id_rsa",
    "id_ed25519",
    "id_rsa.pub",
    "server.pem",
    "tls.key",
    "cert.p12",
    "key.pfx",
    "store.jks",
    "putty.ppk",
    "vault.kdbx",
    "credentials.json",
    "gcp-credentials.json",
    "client_secret_1.json",
    "secrets.json",
    "my-secrets.txt",
    "service-account.json",
    "service_account_key.json",
    "token",
    "token.txt",
    "token.json",
    "hf_token.txt",
    "access_token.json",
    "wandb_token.txt",
    "github-token.txt",
    "api_key.txt",
    "openai-api-key.txt",
    "passwords.txt",
    ".vscode/settings.json",
    ".bash_history",
    ".python-version",
    ".netrc.txt",
    "auth.json",
    "kubeconfig",
    "known_hosts",
    "terraform.tfstate",
    "env",
    "sub/.env",
    "a/b/id_rsa",
    ".ENV",
    "ID_RSA",
    "Server.PEM",
    "Credentials.json",
    "sub/.kube/config.json",
]
LEFT = [
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "rng_state_0.pth",
    "training_args.bin",
    "trainer_state.json",
    "trainer_log.jsonl",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "random_states_0.pkl",
    "zero_to_fp32.py",
    "latest",
    "global_step500/mp_rank_00_model_states.pt",
    "global_step500/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "checkpoint-400/model.safetensors",
    "checkpoint-400/config.json",
    "checkpoint-400/adapter_config.json",
    "runs/Jan01/events.out.tfevents.1",
    "events.out.tfevents.17",
    "wandb/run-1/files/config.json",
    "mlruns/0/meta.json",
    "lightning_logs/v/hparams.json",
    "logs/a.txt",
    "train.log",
    "tensorboard/x.json",
    "pytorch_model_fsdp_0/__0_0.distcp",
    "optimizer_0/x.json",
    "Optimizer.pt",
    "training_loss.png",
]
NEEDED = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tiktoken.tiktoken",
    "qwen.tiktoken",
    "sentencepiece.bpe.model",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/rag.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor/preprocessor_config.json",
    "tokenizer/tokenizer.json",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    "USE_POLICY.md",
    "README.md",
    "assets/a.png",
    "spiece.model",
    "special_tokens.txt",
    "image_token_map.json",
    "vision_token_pruning.json",
    "keyboard.txt",
    "configuration.json",
    "recipe.yaml",
]


def fill(folder: Path, names: list[str], text: str = "{}") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_stay(name: str) -> None:
    assert file_reason(name) == PRIVATE


@pytest.mark.parametrize("name", LEFT)
def test_a_trainings_leavings_stay(name: str) -> None:
    assert file_reason(name) == TRAINING


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_model_needs_travels(name: str) -> None:
    assert file_reason(name) is None


@given(st.text("abc._-/", min_size=1, max_size=12))
def test_dot_files_never_travel(name: str) -> None:
    parts = name.split("/")
    if any(part.startswith(".") for part in parts) and all(part not in ("", ".", "..") for part in parts):
        assert file_reason(name) == PRIVATE


def test_a_training_folder(src: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    """Patched: named once in a note and in the record, not there; unpatch gives back what was taken and says what was not."""
    before = snapshot(src)
    fill(src, [n for n in [*SECRETS, *LEFT] if n.lower() == n and not n.startswith(("env", "latest/"))])
    fill(src, [n for n in NEEDED if not (src / n).exists()])
    wanted = set(before) | set(NEEDED)
    (src / "wandb" / "latest-run").symlink_to(src / "wandb" / "run-1")  # folders that stay are not looked into
    found = CliRunner().invoke(main, ["patch", str(src), str(tmp_path / "out"), "--layers", "1", "--heads", "all"])
    assert found.exit_code == 0, found.output
    for word in (
        "optimizer.pt",
        "global_step500/",
        ".env",
        "training_args.bin",
        "checkpoint-400/",
        "runs/",
        "secrets and dot",
    ):
        assert word in found.stderr
    record = read_patched(tmp_path / "out").manifest
    assert wanted <= set(record.files) and not [n for n in record.files if n in SECRETS or n in LEFT]
    assert record.left_out["optimizer.pt"] == TRAINING and record.left_out[".env"] == PRIVATE
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name in (".env", "id_rsa", "optimizer.pt")]
    back = CliRunner().invoke(main, ["unpatch", str(tmp_path / "out"), str(tmp_path / "back")])
    assert "optimizer.pt" in back.stderr and "does not come back" in back.stderr
    assert set(snapshot(tmp_path / "back")) == wanted
    names = {*read_contents(tmp_path / "out").files}
    assert not names & {*SECRETS, *LEFT} and set(NEEDED) - {"README.md"} <= names


def test_a_folder_of_an_older_version_keeps_its_secrets(src: Path, tmp_path: Path) -> None:
    """Files that are on record, as an older version put them there, do not travel, and the record that is sent lacks them."""
    out = tmp_path / "out"
    patch_checkpoint(src, out, layers="1", heads="all")
    fill(out, [".env", "optimizer.pt", "notes.txt"], "a hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567 b")
    raw = json.loads((out / "lostattn.json").read_text())
    for name in (".env", "optimizer.pt", "notes.txt"):
        raw["files"][name] = {
            "size": (out / name).stat().st_size,
            "role": "carried",
            "placed": "copy",
            "sha256": sha(out / name),
        }
    (out / "lostattn.json").write_text(json.dumps(raw))
    found = read_contents(out)
    assert found.kept_back == {".env": PRIVATE, "optimizer.pt": TRAINING, "notes.txt": PRIVATE}
    assert not set(found.kept_back) & (set(found.files) | set(found.manifest.files))
    assert found.manifest.left_out == {"optimizer.pt": TRAINING}


def sha(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


KEYS = [
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc",
    "-----BEGIN RSA PRIVATE KEY-----",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_text_that_holds_a_key(small: Path, key: str) -> None:
    (small / "notes.txt").write_text(f"remember: {key}\n")
    found = resolve_source(small)
    assert "notes.txt" not in found.files and found.left_out == {"notes.txt": PRIVATE}
    (small / "README.md").write_text(f"use {key}")
    with pytest.raises(LostattnError, match="README.md holds what looks like"):
        resolve_source(small)


def test_a_placeholder_is_no_key(small: Path) -> None:
    (small / "README.md").write_text("export HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
    assert "README.md" in resolve_source(small).files


def test_a_link_to_a_secret_under_a_harmless_name(small: Path) -> None:
    (small / ".env").write_text("x")
    (small / "notes.txt").symlink_to(".env")
    assert "notes.txt" not in resolve_source(small).files


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "Adapter_Config.json"]
)
def test_an_adapter_beside_full_weights(small: Path, name: str) -> None:
    (small / name).write_bytes((small / "model.safetensors").read_bytes() if name.endswith("tensors") else b"{}")
    with pytest.raises(LostattnError, match="beside full weights.*merge it first"):
        resolve_source(small)


def test_an_adapter_alone(small: Path) -> None:
    (small / "config.json").unlink()
    (small / "adapter_config.json").write_text("{}")
    with pytest.raises(LostattnError, match="adapter alone.*merge it into its base"):
        resolve_source(small)


@pytest.mark.parametrize("name", ["speech-lora/adapter_config.json", "checkpoint-400/adapter_model.safetensors"])
def test_an_adapter_further_down_stays(small: Path, name: str) -> None:
    fill(small, [name])
    found = resolve_source(small)
    assert found.files == ("config.json", "model.safetensors") and found.left_out


def index_of(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_a_single_file_beside_an_index(small: Path) -> None:
    """transformers loads the file, vLLM the shards."""
    shutil.copy(small / "model.safetensors", small / "model-00001-of-00001.safetensors")
    index_of(small, {"w": "model-00001-of-00001.safetensors"})
    with pytest.raises(LostattnError, match="two sets of weights.*model.safetensors.*model-00001"):
        resolve_source(small)
    index_of(small, {"w": "model.safetensors"})  # an index of that very file
    found = resolve_source(small)
    assert found.weights == ("model.safetensors",) and "model-00001-of-00001.safetensors" in found.left_out
    (small / "model.safetensors").unlink()
    index_of(small, {"w": "model-00001-of-00001.safetensors"})
    assert resolve_source(small).weights == ("model-00001-of-00001.safetensors",)


OTHERS = [
    "model.fp16.safetensors",
    "consolidated.safetensors",
    "model-00003-of-00003.safetensors",
    "ema.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
    "model.gguf",
    "original/consolidated.00.pth",
    "onnx/model.onnx",
]


@pytest.mark.parametrize("name", OTHERS)
def test_weights_beside_those_that_are_loaded_stay(small: Path, name: str) -> None:
    """Else vLLM, which takes every *.safetensors where there is no index, would load them too."""
    (small / name).parent.mkdir(exist_ok=True)
    shutil.copy(small / "model.safetensors", small / name)
    found = resolve_source(small)
    assert found.weights == ("model.safetensors",) and name in found.left_out and name not in found.files
    assert any(name in note for note in found.notes)


def test_a_name_of_ones_own_for_the_weights(small: Path) -> None:
    (small / "model.safetensors").rename(small / "mine.safetensors")
    with pytest.raises(LostattnError, match="only mine.safetensors.*rename it"):
        resolve_source(small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "transformers_weights": "mine.safetensors"}))
    assert resolve_source(small).weights == ("mine.safetensors",)
    shutil.copy(small / "mine.safetensors", small / "a.safetensors")
    index_of(small, {"w": "a.safetensors"})
    with pytest.raises(LostattnError, match="two sets"):
        resolve_source(small)


def test_both_engines_take_the_set_that_is_named(src: Path, tmp_path: Path) -> None:
    """transformers and vLLM, asked which files of the patched folder they read."""
    loader = pytest.importorskip("vllm.model_executor.model_loader.weight_utils")
    shard = next(src.glob("*.safetensors"))
    shutil.copy(shard, src / "model.fp16.safetensors")
    shutil.copy(shard, src / "consolidated.safetensors")
    patch_checkpoint(src, tmp_path / "out", layers="1", heads="all")
    here = [str(p) for p in (tmp_path / "out").glob("*.safetensors")]
    taken = loader.filter_duplicate_safetensors_files(here, str(tmp_path / "out"), "model.safetensors.index.json")
    assert {Path(p).name for p in taken} == set(resolve_source(src).weights) == {Path(p).name for p in here}


def test_an_index_that_lacks_a_tensor(src: Path, tmp_path: Path) -> None:
    """Both engines read shards whole: accepted with a note, and it loads."""
    from lostattn.patches import load_patched

    path = src / "model.safetensors.index.json"
    whole = json.loads(path.read_text())["weight_map"]
    name, other = next(iter(whole)), next(shard for shard in whole.values() if shard != next(iter(whole.values())))
    for weight_map in ({k: v for k, v in whole.items() if k != name}, whole | {name: other}, whole | {"ghost": other}):
        index_of(src, weight_map)
        notes = prepare(src, PatchSpec(layers="1", heads="all")).planned.notes
        assert any("model.safetensors.index.json" in note and (name in note or "ghost" in note) for note in notes)
        patch_checkpoint(src, tmp_path / "out", layers="1", heads="all", force=True)
        load_patched(tmp_path / "out")
    index_of(src, {k: v for k, v in whole.items() if v != other})  # a whole shard that nobody reads
    with pytest.raises(LostattnError, match="the weights lack"):
        prepare(src, PatchSpec(layers="1", heads="all"))


def test_an_index_without_metadata(small: Path) -> None:
    (small / "model.safetensors").rename(small / "a.safetensors")
    (small / "model.safetensors.index.json").write_text('{"weight_map": {"w": "a.safetensors"}}')
    assert any("metadata" in note for note in resolve_source(small).notes)


def test_unpatch_of_the_api(src: Path, tmp_path: Path) -> None:
    fill(src, [".env", "optimizer.pt"])
    patch_checkpoint(src, tmp_path / "out", layers="1", heads="all")
    assert not (unpatch(tmp_path / "out", tmp_path / "back") / ".env").exists()
