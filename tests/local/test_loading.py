"""Loading a model, without Weir around it: what is said where it cannot be, and how often it is tried."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from weir.backend import Call
from weir.backend.transformers import BadModel, TransformersBackend
from weir.core.errors import UpstreamFailed
from weir.core.types import Endpoint, Timeouts


def asking(**fields: Any) -> Call:
    hello = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 30}
    return Call("/chat/completions", json.dumps(hello | fields).encode(), [], Timeouts())


async def said(backend: TransformersBackend, **fields: Any) -> str:
    async with backend.send(Endpoint("embedded", model="m"), asking(**fields)) as answer:
        body = json.loads(await answer.read())
        assert (answer.status, body["model"]) == (200, "m")
    return body["choices"][0]["message"]["content"]


def test_a_broken_model_is_a_sentence_and_a_request_fails(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-that-is"}')

    async def scene() -> None:
        backend = TransformersBackend(str(tmp_path))
        for _ in range(2):
            with pytest.raises(BadModel, match=f"The model {tmp_path} cannot be loaded"):
                await backend.ready()
        with pytest.raises(UpstreamFailed, match="could not be loaded"):
            await said(backend)
        await backend.close()

    asyncio.run(scene())


def test_it_is_loaded_once_and_the_first_who_asks_may_leave(folders: dict[str, Path]) -> None:
    async def scene() -> None:
        backend = TransformersBackend(str(folders["tiny"]))
        impatient = asyncio.ensure_future(backend.ready())
        await asyncio.sleep(0)
        impatient.cancel()
        models = await asyncio.gather(*(backend.ready() for _ in range(3)))
        assert len(set(map(id, models))) == 1
        await backend.close()

    asyncio.run(scene())


def test_a_model_s_own_sampling_holds_until_a_request_says_otherwise(folders: dict[str, Path], tmp_path: Path) -> None:
    """Its generation_config.json: what most models on the hub bring along."""
    narrow = tmp_path / "narrow"
    shutil.copytree(folders["tiny"], narrow)
    settings = json.loads((narrow / "generation_config.json").read_text())
    sampled = {"do_sample": True, "temperature": 1.5, "top_k": 1, "max_length": 30}
    (narrow / "generation_config.json").write_text(json.dumps(settings | sampled))

    async def scene() -> None:
        backend = TransformersBackend(str(narrow))
        own = [await said(backend, seed=seed) for seed in (1, 2)]
        assert own == [await said(backend, temperature=0)] * 2
        assert len({await said(backend, seed=seed, top_k=0) for seed in (1, 2, 3)}) == 3
        await backend.close()

    asyncio.run(scene())


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_the_cpu(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture, device: Any
) -> None:
    """With one line about it. Where there is such a device, it is used."""
    import torch  # noqa: PLC0415  this test alone asks what there is

    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}[device]()

    async def scene() -> None:
        backend = TransformersBackend(str(folders["tiny"]), device=device)
        assert await said(backend)
        await backend.close()

    asyncio.run(scene())
    told = [
        record.message for record in caplog.records if record.name == "weir.backend" and record.levelname == "WARNING"
    ]
    assert told == ([] if there else [f"there is no {device} device here: the model runs on the CPU"])
