"""A model of random weights, made on the spot: 64 numbers wide, two layers, a token for each byte.

It says nothing of sense, and always the same for the same seed; everything around it is as with a large one: safetensors,
a fast tokenizer, a chat template, special tokens.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN, END = "<|im_start|>", "<|im_end|>"
LENGTH = 32_768  # so that an answer may take as long as a test wants
SEED = 7

# ChatML, as many models have it, with a place for tools and a sentence for who speaks out of turn.
TEMPLATE = """\
{%- if messages[0].role == 'assistant' %}{{ raise_exception('The first message must not be of the assistant.') }}{% endif -%}
{%- if tools %}{{ '<|im_start|>system\nTools:' }}{% for tool in tools %}{{ ' ' + tool.function.name }}{% endfor %}{{ '<|im_end|>\n' }}{% endif -%}
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
"""


def make(folder: Path, *, template: bool = True, length: int = LENGTH) -> Path:
    """The folder, with a model in it as `save_pretrained` writes it."""
    tokenizer = _tokenizer(template=template)
    end = tokenizer.convert_tokens_to_ids(END)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=length,
        bos_token_id=tokenizer.convert_tokens_to_ids(BEGIN),
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Letters and spaces rather than halves of characters; and it never ends by itself, so that tests decide when.
        model.lm_head.weight *= 20
        for token in range(len(tokenizer)):
            if not _is_plain(tokenizer.convert_ids_to_tokens(token)):
                model.lm_head.weight[token] = 0
        model.lm_head.weight[end] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _is_plain(token: str) -> bool:
    return len(token) == 1 and (token.isascii() and token.isalpha())


def _tokenizer(*, template: bool) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, bos_token=BEGIN, eos_token=END, pad_token=END)
    if template:
        tokenizer.chat_template = TEMPLATE
    return tokenizer
