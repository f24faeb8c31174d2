"""Published weights: from the local Hugging Face cache, or downloaded once, with their SHA-256.

What is downloaded is the commit that the catalog names, where it names one. Downloads show a
progress bar and resume where they broke off. Without a network the answer comes
within `DEADLINE` seconds, whatever the name servers do.
"""

from __future__ import annotations

import contextlib
import textwrap
import threading
from pathlib import Path

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.source import Source, sha256_of
from pirn_jax.errors import WeightsError

DEADLINE = 10.0  # seconds to find out that there is no network
_PATIENCE = 6.0  # of them for the question itself; imports take the rest
_WEIGHTS, _CONFIGURATION = "model.safetensors", "config.json"


class Unavailable(WeightsError):
    """The hub cannot be asked, or does not hand out these weights; nothing is wrong with a file."""


def cached_weights(config: EncoderConfig) -> Source | None:
    """The network's weights from the local cache, or None; never touches the network.

    Where the commit of the catalog is not there, the one that others brought there is taken.
    """
    from huggingface_hub import try_to_load_from_cache

    for revision in dict.fromkeys((config.revision or None, None)):
        found = try_to_load_from_cache(config.hub, _WEIGHTS, revision=revision)
        if isinstance(found, str):
            return _source(config, Path(found))
    return None


def download_weights(config: EncoderConfig) -> Source:
    """Download the network's weights and configuration into the local Hugging Face cache.

    Raises:
        Unavailable: no network, no such file, or no access.
        WeightsError: the file does not have the SHA-256 that the hub, or the catalog, states for
            it.
    """
    from huggingface_hub import hf_hub_download

    _ask(config)
    try:
        path = Path(hf_hub_download(config.hub, _WEIGHTS, revision=config.revision or None))
    except Exception as error:  # the hub's client changes its HTTP library, and so their kinds
        raise Unavailable(
            f"the download of {config.hub} broke off ({_in_a_line(error)})",
            "run the same command again: it resumes where it stopped",
        ) from error
    with contextlib.suppress(Exception):  # of use, but not needed
        hf_hub_download(config.hub, _CONFIGURATION, revision=path.parent.name)
    return _source(config, path)


def _ask(config: EncoderConfig) -> None:
    """Whether the hub has the weights; a clear refusal within the deadline where it has not."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise Unavailable(
            f"{config.hub} is not in the cache, and HF_HUB_OFFLINE is set",
            f"give a file: weights='…/{_WEIGHTS}' (--weights); or unset HF_HUB_OFFLINE",
        )
    answer: list[object] = []

    def ask() -> None:
        try:
            from huggingface_hub import get_hf_file_metadata, hf_hub_url

            url = hf_hub_url(config.hub, _WEIGHTS, revision=config.revision or None)
            answer.append(get_hf_file_metadata(url, timeout=_PATIENCE - 1))
        except Exception as error:  # each kind of failure is told apart below
            answer.append(error)

    # A thread, because a name look-up ignores every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    result = answer[0] if answer else TimeoutError("no answer in time")
    if not isinstance(result, Exception):
        return
    status = getattr(getattr(result, "response", None), "status_code", None)
    if status == 404:
        raise Unavailable(
            f"{config.hub} holds no {_WEIGHTS}",
            "convert its checkpoint (python -m pirn_jax.encoder.convert) and give the file",
        )
    if status in (401, 403):
        raise Unavailable(f"{config.hub} asks for a login", "run: hf auth login")
    raise Unavailable(
        f"cannot reach the hub for {config.hub} ({_in_a_line(result)})",
        f"give a file: weights='…/{_WEIGHTS}' (--weights); or copy the folder from a machine with "
        f"a network (hf download {config.hub}); or use the encoder pirn-tiny, which needs none",
    )


def _in_a_line(error: Exception) -> str:
    """What went wrong, without the page that HTTP clients add to it."""
    first = str(error).strip().partition("\n")[0]
    for end in (". ", " (Request ID"):
        first = first.partition(end)[0]
    return textwrap.shorten(first, 120, placeholder="…") or type(error).__name__


def _source(config: EncoderConfig, path: Path) -> Source:
    """The cached file, if it is what the hub says, by its name in the cache, and the catalog."""
    digest, blob = sha256_of(path), path.resolve()
    revision = path.parent.name  # …/snapshots/<revision>/model.safetensors
    stated = {config.hub: blob.name} if len(blob.name) == 64 else {}
    if config.sha256 and revision == config.revision:
        stated["the catalog"] = config.sha256
    for who, expected in stated.items():
        if digest != expected:
            blob.unlink()
            path.unlink(missing_ok=True)
            raise WeightsError(
                f"SHA-256 {digest} is not the {expected} that {who} states; deleted",
                "run the same command again to download it anew",
                path,
            )
    return Source(str(path), digest, config.hub, revision)
