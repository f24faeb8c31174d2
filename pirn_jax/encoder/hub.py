"""Published weights: from the local Hugging Face cache, or downloaded once, with their SHA-256.

Downloads show a progress bar and resume where they broke off. Without a network the answer comes
within `DEADLINE` seconds, whatever the name servers do.
"""

from __future__ import annotations

import threading
from pathlib import Path

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.weights import Source, sha256_of
from pirn_jax.errors import WeightsError

DEADLINE = 10.0  # seconds to find out that there is no network
_FILES = ("model.safetensors", "config.json")


def cached_weights(config: EncoderConfig) -> Source | None:
    """The network's weights from the local cache, or None; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.hub, _FILES[0])
    return _source(config, found) if isinstance(found, str) else None


def download_weights(config: EncoderConfig) -> Source:
    """Download the network's weights and configuration into the local Hugging Face cache.

    Raises:
        WeightsError: no network, the hub refuses, or the file does not have the SHA-256 that the
            hub states for it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    stated = _ask(config)
    try:
        path = hf_hub_download(config.hub, _FILES[0])
        hf_hub_download(config.hub, _FILES[1])
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{config.hub} holds no {error.args[0].split('/')[-1] if error.args else _FILES[0]}",
            "convert its checkpoint with python -m pirn_jax.encoder.convert and give the path",
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise WeightsError(
            f"the download of {config.hub} broke off: {error}",
            "run the same command again: it resumes where it stopped",
        ) from error
    source = _source(config, path)
    if len(stated) == 64 and stated != source.sha256:
        raise WeightsError(
            f"SHA-256 {source.sha256} is not the {stated} that {config.hub} states",
            "delete the file and download it again",
            path,
        )
    return source


def _ask(config: EncoderConfig) -> str:
    """The hub's checksum for the weights; a clear refusal within the deadline without a network."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answer: list[object] = []

    def ask() -> None:
        try:
            answer.append(get_hf_file_metadata(hf_hub_url(config.hub, _FILES[0]), timeout=8).etag)
        except Exception as error:  # every kind of network failure, reported below
            answer.append(error)

    # A thread, because a name look-up ignores every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DEADLINE - 1.0)
    result = answer[0] if answer else "no answer in time"
    if isinstance(result, str | None) and answer:
        return result or ""
    raise WeightsError(
        f"cannot reach the hub for {config.hub}: {result}",
        f"give a file: weights='…/{_FILES[0]}' (--weights); or copy the folder from a machine with "
        f"a network (hf download {config.hub}); or use the encoder 'demo'",
    )


def _source(config: EncoderConfig, path: str) -> Source:
    # …/snapshots/<revision>/model.safetensors
    return Source(path, sha256_of(Path(path)), config.hub, Path(path).parent.name)
