"""A ticket in the layout of the Hugging Face Hub: three safetensors files, `config.json` and a model card.

`model.safetensors` holds the trained weights as a plain state_dict, `start.safetensors` the weights that the ticket is
trained from, and `mask.safetensors` the mask. `config.json` says where the ticket comes from, and has a checksum of
each file. There is no code in it, and none is run on load.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tombola.errors import InputError
from tombola.export.model_card import card
from tombola.extras import need
from tombola.pruning.mask import Mask
from tombola.running.files import write_whole, writing
from tombola.running.results import Results
from tombola.running.ticket import About, Ticket
from tombola.studies.explaining import explain
from tombola.training.engine import Weights

FORMAT = 1
CONFIG, CARD = "config.json", "README.md"
TRAINED, START, MASK = "model.safetensors", "start.safetensors", "mask.safetensors"
TENSORS = (TRAINED, START, MASK)
MOST = 16 * 1024**2  # bytes of a config.json that is read
ROOM = "name an existing folder with free space"


def save_pretrained(ticket: Ticket, folder: str | Path, results: Results | None = None) -> Path:
    """Write a ticket into a folder in the Hub's layout, and return the folder.

    Args:
        ticket: what to write.
        folder: made where it is missing; files of these names are replaced.
        results: of the ticket's study: the model card then has the verdict, its interval and the command.

    Raises:
        InputError: the ticket is not of these results.
        StoreError: it can't be written.
    """
    target, text = Path(folder), card(ticket, results)
    with writing(target, ROOM):
        target.mkdir(parents=True, exist_ok=True)
        _save(ticket.trained, target / TRAINED)
        _save(ticket.weights, target / START)
    ticket.mask.save(target / MASK)
    config = {
        "library_name": "tombola",
        "format": FORMAT,
        "origin": ticket.origin,
        "normalisation": ticket.normalisation,
        "mask": ticket.mask.shapes(),
        "files": {name: _digest(target / name) for name in TENSORS},
    }
    write_whole(target / CONFIG, (json.dumps(config, indent=1) + "\n").encode(), ROOM)
    write_whole(target / CARD, text.encode(), ROOM)
    return target


def _save(weights: Weights, path: Path) -> None:
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}, path, {"format": "pt"})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def push_to_hub(
    ticket: Ticket,
    repo: str,
    results: Results | None = None,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Add a ticket",
) -> str:
    """Upload a ticket to a model repository of the Hub, which is made where it is missing; return its address.

    Args:
        ticket: what to upload.
        repo: "owner/name".
        results: as in `save_pretrained`.
        private: whether a new repository is private.
        token: of the Hub; without one, that of `hf auth login` or of the variable HF_TOKEN.
        message: of the commit.

    Raises:
        InputError: huggingface_hub is not installed, the ticket is not of these results, or the Hub refuses.
    """
    need("huggingface_hub", "push_to_hub")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(ticket, folder, results)
        api = HfApi(endpoint=_endpoint(), token=token)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except (OSError, ValueError) as error:
            raise _refused("uploaded to", repo, error) from error
    return f"{api.endpoint}/{repo}"


def from_pretrained(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Ticket:
    """Return the ticket of a local folder, or of a model repository of the Hub.

    Args:
        name: a folder that `save_pretrained` wrote, or "owner/name".
        revision: a branch, tag or commit of the repository.
        token: as in `push_to_hub`.

    Raises:
        InputError: the folder or repository does not exist, it contains no ticket, or it was altered.
    """
    if Path(name).is_dir():
        return _read({each: Path(name) / each for each in (CONFIG, *TENSORS)}, str(name))
    need("huggingface_hub", f"from_pretrained({str(name)!r}) (not a local folder)")
    from huggingface_hub import hf_hub_download

    paths = {}
    for each in (CONFIG, *TENSORS):
        try:
            found = hf_hub_download(str(name), each, revision=revision, token=token, endpoint=_endpoint())
        except (OSError, ValueError) as error:
            raise _refused("read from", str(name), error) from error
        paths[each] = Path(str(found))
    return _read(paths, str(name))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _refused(done: str, repo: str, error: Exception) -> InputError:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return InputError(
        f"{repo!r} can't be {done} {_endpoint() or 'the Hub'}: {reason[:300]}; check the name (a folder, or "
        "owner/name), the revision and the token"
    )


def _read(paths: dict[str, Path], name: str) -> Ticket:
    """Read the files of a ticket, whoever wrote them."""
    config = _config(paths[CONFIG], name)
    for file in TENSORS:
        if not paths[file].is_file():
            raise InputError(f"{name} holds no whole ticket: {file} is missing; download or save it again")
        if config["files"].get(file) != _digest(paths[file]):
            raise InputError(f"{name} was altered: {CONFIG} has another checksum of {file}; download or save it again")
    try:
        about = About.model_validate(config)
    except ValidationError as error:
        raise InputError(f"{name} contains no ticket: {'; '.join(explain(error, About).splitlines())}") from None
    mask = Mask.load(paths[MASK])
    if mask.shapes() != dict(about.mask):
        raise InputError(f"{name} was altered: {MASK} and {CONFIG} differ in the shapes of layers; save it again")
    try:
        trained, start = load_file(paths[TRAINED]), load_file(paths[START])
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{name} contains no ticket: its weights can't be read ({error})") from error
    return Ticket(mask, start, trained, config["normalisation"], config["origin"])


def _config(path: Path, name: str) -> dict[str, Any]:
    """Return what `config.json` says, after checking its form."""
    remedy = "give what Ticket.save_pretrained wrote"
    try:
        if path.stat().st_size > MOST:
            raise InputError(f"{name} contains no ticket: {CONFIG} is larger than {MOST:,} bytes; {remedy}")
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise InputError(f"{name} contains no ticket: it has no {CONFIG}; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} contains no ticket: {CONFIG} is not JSON ({error}); {remedy}") from error
    if not isinstance(found, dict) or found.get("library_name") != "tombola":
        raise InputError(f"{name} contains no ticket: {CONFIG} is of another library; {remedy}")
    if found.get("format") != FORMAT or not isinstance(found.get("files"), dict):
        written = found.get("format")
        raise InputError(f"{name}: its format is {written!r}, but this version reads format {FORMAT}; upgrade tombola")
    return found
