"""Tokens per second of larger models, ours beside `generate`, and how near both come to the device's limits.

    python -m bench.shapes [--shape 1b] [--batches 1,8,32,128] [--prompt 200] [--new 48] [--device auto]

Weights are random in the shape of common models: speed does not depend on what they say. Limits are measured on
the same device in the same run: reading memory for decode of few rows, the matrix product for prefill.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.common import console, print_table
from briefbox.settings import load_settings
from models import attention
from models.device import choose_device, choose_dtype, describe, set_threads
from models.linear import pack_linears
from models.session import Session, compute_prefix

# hidden, intermediate, layers, heads, key-value heads, vocabulary
SHAPES = {
    "135m": (576, 1536, 30, 9, 3, 49_152),
    "1b": (2048, 8192, 16, 32, 8, 128_256),
    "3b": (3072, 8192, 28, 24, 8, 128_256),
    "tiny": (64, 128, 2, 4, 2, 1_000),
}
SHARED = 256


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--batches", default="1,8,32,128", help="rows at once")
    parser.add_argument("--prompt", type=int, default=200, help="own tokens of each prompt")
    parser.add_argument("--new", type=int, default=48, help="tokens written for each email")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = parser.parse_args()
    settings = load_settings(device=arguments.device)
    set_threads(settings)
    device = choose_device(settings)
    dtype = choose_dtype(device, settings)
    torch.manual_seed(0)
    model = random_model(arguments.shape, dtype, device)
    weights = sum(p.numel() for p in model.parameters())
    product, reading = limits(device, dtype)
    rows = []
    for batch in map(int, arguments.batches.split(",")):
        prompts = torch.randint(5, model.config.vocab_size, (batch, arguments.prompt)).tolist()
        shared = torch.randint(5, model.config.vocab_size, (SHARED,)).tolist()
        prefill, decode = _ours(model, shared, prompts, arguments.new)
        whole = _generate(model, shared, prompts, arguments.new)
        step = decode / arguments.new
        rows.append(
            (
                batch,
                f"{batch / (prefill + decode):.2f}",
                f"{batch / whole:.2f}",
                f"{whole / (prefill + decode):.1f}",
                f"{batch * arguments.prompt / prefill:.0f}",
                f"{2 * weights * batch * arguments.prompt / prefill / product:.0%}",
                f"{batch / step:.0f}",
                f"{weights * dtype.itemsize / step / reading:.0%}",
            )
        )
    print_table(
        f"{arguments.shape}: {weights / 1e9:.2f} billion weights in {dtype} on {describe(device)}",
        (
            "rows",
            "ours, emails/s",
            "generate, emails/s",
            "times",
            "prefill tokens/s",
            "of the product",
            "decode tokens/s",
            "of the bandwidth",
        ),
        rows,
    )
    console.print(f"Limits: {product / 1e12:.2f} TFLOP/s, {reading / 1e9:.0f} GB/s read.")


def random_model(shape: str, dtype: torch.dtype, device: torch.device) -> LlamaForCausalLM:
    """A model of random weights, one of SHAPES."""
    hidden, middle, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=middle,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        attn_implementation=attention.NAME,
    )
    with torch.device(device):
        model = LlamaForCausalLM(config).to(dtype).eval()
    pack_linears(model)
    return model


def _ours(
    model: LlamaForCausalLM, shared: list[int], prompts: list[list[int]], new: int
) -> tuple[float, float]:
    """Seconds of prefill and of decode; the shared beginning is computed once for many batches and not counted."""
    prefix = compute_prefix(model, shared)
    session = Session(model, prefix, len(prompts), len(prompts[0]) + new + 1)
    one = [[7]] * len(prompts)
    session.append(one)
    session.rewind(dict.fromkeys(range(len(prompts)), 0))
    prefill = _seconds(lambda: session.append(prompts))
    return prefill, _seconds(lambda: [session.append(one).argmax(dim=1).tolist() for _ in range(new)])


def _generate(model: LlamaForCausalLM, shared: list[int], prompts: list[list[int]], new: int) -> float:
    """Seconds of transformers' own batched `generate` over whole prompts."""
    model.set_attn_implementation("sdpa")
    try:
        ids = torch.tensor([[*shared, *prompt] for prompt in prompts], device=model.device)
        with torch.inference_mode():
            return _seconds(
                lambda: model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=False,
                    pad_token_id=0,
                )
            )
    finally:
        model.set_attn_implementation(attention.NAME)


def limits(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of the best of some large products, and bytes/s of the best of some sums."""
    size = 8192 if device.type == "cuda" else 2048
    # Random: a product of ones, or zeros, takes less power and runs faster.
    one = torch.randn(size, size, dtype=dtype, device=device)
    long = torch.ones(1 << (30 if device.type == "cuda" else 27), dtype=torch.int8, device=device).view(
        torch.float32
    )
    with torch.inference_mode():
        product = max(2 * size**3 / _seconds(lambda: one @ one) for _ in range(5))
        reading = max(long.numel() * 4 / _seconds(lambda: long.sum()) for _ in range(5))
    return product, reading


def _seconds(run: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
