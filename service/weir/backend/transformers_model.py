"""A Hugging Face model in memory, and one generation of it. Everything here blocks, and belongs to one thread.

transformers and torch are imported here alone, and only when a model is loaded.
"""

import logging
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from weir.backend.results_refused import Refused
from weir.backend.transformers_answer import Totals
from weir.backend.transformers_request import Asked, Json, Sampling
from weir.backend.transformers_text import Decoder, StopStrings

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

PACKAGES = ("torch", "transformers")
PIP_LINE = "pip install 'weir-gateway[local]'"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
ASSUMED_MAX_TOKENS = 4096  # where neither the request nor the model's own length says one
# Of a model's own generation_config: what a request may say otherwise, and what would bound it behind our back.
SAMPLING = Sampling._fields[:-1]
OURS = frozenset({*SAMPLING, "do_sample", "max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams"})

_log = logging.getLogger("weir.backend")


class BadModel(ValueError):
    """What a configuration names cannot be loaded; the sentence says why, and what to do."""


class Left(Exception):
    """Nobody waits for this any more."""


class Options(NamedTuple):
    """Where and how. `threads` are those of one operation on a CPU; None: as torch chooses."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None


def check(model: str) -> None:
    """What can be seen without loading anything. Raises BadModel."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise BadModel(f"A local model needs {' and '.join(missing)}; run: {PIP_LINE}")
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BadModel(f"The folder {model} holds no model: there is no config.json in it.")
    elif not HUB_NAME.fullmatch(model):
        raise BadModel(f"There is no folder {model}, and a model of the Hugging Face hub is named like 'org/model'.")


def load(name: str, options: Options) -> "LocalModel":
    """Raises BadModel."""
    try:
        return LocalModel(name, options)
    except Exception as error:  # other people's packages and files: anything may be wrong with them, or too large
        first = str(error).strip().partition("\n")[0]
        raise BadModel(f"The model {name} cannot be loaded: {type(error).__name__}: {first}") from error


class LocalModel:
    """A model and its tokenizer, made by `load`."""

    def __init__(self, name: str, options: Options) -> None:
        # Here and not above: seconds, and some hundred megabytes, which only a process with such a model pays. By name,
        # because neither package is there where types are checked: Any is their honest type.
        torch: Any = import_module("torch")
        transformers: Any = import_module("transformers")
        transformers.utils.logging.disable_progress_bar()  # a log is made of lines
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._torch, self._transformers = torch, transformers
        self._device = _device(torch, options.device)
        dtype = "float32" if options.dtype == "auto" and self._device == "cpu" else options.dtype
        folder = Path(name).expanduser()
        where = str(folder) if folder.is_dir() else name
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype)
        self._model = model.to(self._device).eval()
        self._settle_generation()
        length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._length: int | None = length if isinstance(length, int) and length > 0 else None
        _log.info("the model %s is loaded, on %s", name, self._device)

    def _settle_generation(self) -> None:
        """The model's own settings for generating, apart from sampling: that is done here, with a seed of its own."""
        settings, plain = self._model.generation_config, self._transformers.GenerationConfig()
        own = settings.to_diff_dict()  # what differs from the library's defaults, which are not the model's wish
        self._sampling = Sampling(**{name: own[name] for name in SAMPLING if own.get(name) is not None})
        for name in OURS:
            setattr(settings, name, getattr(plain, name))
        ends = own.get("eos_token_id", self._tokenizer.eos_token_id)
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        settings.eos_token_id = sorted(self._ends) or None
        # One answer at a time has nothing to pad, but a model without such a token is warned about at each request.
        padding = (self._tokenizer.pad_token_id, *sorted(self._ends), 0)
        settings.pad_token_id = next(token for token in padding if token is not None)
        self._specials = frozenset(self._tokenizer.all_special_ids)

    def generate(self, asked: Asked, tell: Callable[[str], None], left: Callable[[], bool]) -> Totals:
        """Tell the text as it comes, until the end; `left` is asked at each token. Raises Refused and Left."""
        if left():
            raise Left
        prompt = self._prompt(asked)
        most = self._most_tokens(len(prompt), asked.max_tokens)
        hearing = _Hearing(self, asked.stop, tell, left)
        tokens = self._torch.tensor([prompt], dtype=self._torch.long, device=self._device)
        self._model.generate(
            input_ids=tokens,
            attention_mask=self._torch.ones_like(tokens),
            max_new_tokens=most,
            do_sample=False,  # it takes the best of what _Choice leaves: one token
            logits_processor=self._transformers.LogitsProcessorList(
                self._choosing(asked.sampling.over(self._sampling))
            ),
            stopping_criteria=self._transformers.StoppingCriteriaList([hearing]),
        )
        return Totals(len(prompt), hearing.made, hearing.end())

    # -- the prompt

    def _prompt(self, asked: Asked) -> list[int]:
        if isinstance(asked.prompt, list):
            tokens = asked.prompt
            if any(token >= len(self._tokenizer) for token in tokens):
                raise Refused("'prompt' has a token that this model does not know.", param="prompt")
        elif asked.messages is None:
            tokens = self._tokenizer(asked.prompt)["input_ids"]
        else:
            # A template writes the special tokens itself.
            text = self._templated(asked.messages, asked.tools)
            tokens = self._tokenizer(text, add_special_tokens=not self._tokenizer.chat_template)["input_ids"]
        if not tokens:
            raise Refused("There is nothing in this prompt.", code="invalid_value", param="prompt")
        return list(tokens)

    def _templated(self, messages: list[Json], tools: list[Json] | None) -> str:
        if not self._tokenizer.chat_template:
            return "".join(f"{one['role']}: {one['content']}\n" for one in messages) + "assistant:"
        refusals = (import_module("jinja2").TemplateError, TypeError, KeyError)  # its own, and what it took for granted
        try:
            text = self._tokenizer.apply_chat_template(messages, tools, add_generation_prompt=True, tokenize=False)
        except refusals as error:
            raise Refused(
                f"The chat template of this model refuses these messages: {error}", code="invalid_value"
            ) from error
        return str(text)

    def _most_tokens(self, prompt: int, asked: int | None) -> int:
        if self._length is None:
            return asked or ASSUMED_MAX_TOKENS
        left = self._length - prompt
        if left < 1:
            raise Refused(
                f"This model's maximum context length is {self._length} tokens, and the prompt has {prompt}.",
                code="context_length_exceeded",
            )
        return min(left, asked or left)

    # -- the answer

    def _choosing(self, sampling: Sampling) -> list[Any]:
        """What is done to the scores of a next token, one after another."""
        of = self._transformers
        temperature = 1.0 if sampling.temperature is None else sampling.temperature
        steps: list[Any] = []
        if sampling.repetition_penalty not in (None, 1):
            steps.append(of.RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
        if temperature < 0.01:  # sampling would divide by nearly nothing
            return steps
        if temperature != 1:
            steps.append(of.TemperatureLogitsWarper(float(temperature)))
        if sampling.top_k is not None and sampling.top_k > 0:
            steps.append(of.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p is not None and sampling.top_p < 1:
            steps.append(of.TopPLogitsWarper(float(sampling.top_p)))
        if sampling.min_p:
            steps.append(of.MinPLogitsWarper(float(sampling.min_p)))
        return [*steps, _Choice(self._torch, sampling.seed)]

    def text_of(self, tokens: list[int]) -> str:
        """As it stands: English is not made prettier."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def ends(self, token: int) -> bool:
        return token in self._ends

    def is_special(self, token: int) -> bool:
        return token in self._specials

    def verdict(self, *, stop: bool) -> Any:
        """In the form of a StoppingCriteria."""
        return self._torch.full((1,), stop, dtype=self._torch.bool, device=self._device)


class _Choice:
    """A LogitsProcessor that samples, and leaves one token. Its generator is its own, so that the same seed gives the
    same text whatever else this process does; on the CPU, so that it does on every device.
    """

    def __init__(self, torch: Any, seed: int | None) -> None:
        self._torch = torch
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, tokens: Any, scores: Any) -> Any:  # noqa: ARG002 - a LogitsProcessor's form
        chances = self._torch.softmax(scores.float().cpu(), dim=-1)
        chosen = self._torch.multinomial(chances, 1, generator=self._generator)
        left = self._torch.full_like(scores, float("-inf"))
        return left.scatter_(1, chosen.to(scores.device), 0.0)


class _Hearing:
    """A StoppingCriteria: sees each token as it is made, tells its text, and says when it is enough."""

    def __init__(
        self, model: LocalModel, stops: tuple[str, ...], tell: Callable[[str], None], left: Callable[[], bool]
    ) -> None:
        self.made = 0
        self._model = model
        self._tell = tell
        self._left = left
        self._decoder = Decoder(model.text_of)
        self._stops = StopStrings(stops)
        self._over = False

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002 - a StoppingCriteria's form
        # On some devices one token more is made after the last, and taken back.
        if not self._over:
            self._hear(int(tokens[0, -1]))
        return self._model.verdict(stop=self._over)

    def end(self) -> str:
        """Tells what was held back; gives the finish reason. A text ends by itself, by a stop string, or too early."""
        if not self._stops.found:
            self._show(self._stops.of(self._decoder.rest()) + self._stops.rest())
        return "stop" if self._over else "length"

    def _hear(self, token: int) -> None:
        if self._left():
            raise Left
        self.made += 1
        if self._model.ends(token):
            self._over = True
        elif not self._model.is_special(token):
            self._show(self._stops.of(self._decoder.of(token)))
            self._over = self._stops.found

    def _show(self, text: str) -> None:
        if text:
            self._tell(text)


def _device(torch: Any, wanted: Device) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[wanted]:
        _log.warning("there is no %s device here: the model runs on the CPU", wanted)
        return "cpu"
    return wanted
