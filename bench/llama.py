"""llama.cpp's side of bench.inference: run by the interpreter of `.venv-peer`, which has nothing of briefbox.

Reads one JSON line {"model", "shared", "own", "limit", "stop", "parallel", "threads"} of token ids from standard
input, briefs in the given order and prints {"seconds", "prefill", "decode", "tokens_out"}. The shared beginning of
the prompts is computed once before the clock starts and copied to every sequence, as ours is.
"""

import ctypes
import json
import sys
import time

import llama_cpp as C
import numpy as np


class Llama:
    """The C API of llama.cpp with a batch of sequences, greedy."""

    def __init__(self, path: str, threads: int, parallel: int, columns: int) -> None:
        C.llama_backend_init()
        C.llama_log_set(_quiet, ctypes.c_void_p(0))
        self.model = C.llama_model_load_from_file(path.encode(), C.llama_model_default_params())
        options = C.llama_context_default_params()
        options.n_ctx = columns
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        options.n_seq_max = parallel + 1
        options.kv_unified = True
        self.context = C.llama_init_from_model(self.model, options)
        self.memory = C.llama_get_memory(self.context)
        self.vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.model))
        self.batch = C.llama_batch_init(512, 0, 1)

    def run(self, items: list[tuple[int, int, int, bool]]) -> list[int]:
        """Compute (token, position, sequence, wants logits) items; the best next token of each that wants it."""
        best: list[int] = []
        for first in range(0, len(items), 512):
            part = items[first : first + 512]
            self.batch.n_tokens = len(part)
            for place, (token, position, sequence, wants) in enumerate(part):
                self.batch.token[place] = token
                self.batch.pos[place] = position
                self.batch.n_seq_id[place] = 1
                self.batch.seq_id[place][0] = sequence
                self.batch.logits[place] = wants
            if code := C.llama_decode(self.context, self.batch):
                raise RuntimeError(f"llama_decode says {code}")
            for place, item in enumerate(part):
                if item[3]:
                    row = C.llama_get_logits_ith(self.context, place)
                    best.append(int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax()))
        return best


@C.llama_log_callback
def _quiet(*_: object) -> None:
    pass


def main() -> None:
    """One job from standard input."""
    job = json.loads(sys.stdin.readline())
    shared, own, limit, parallel = job["shared"], job["own"], job["limit"], job["parallel"]
    stop = set(job["stop"])
    longest = max(len(ids) for ids in own) + limit
    llama = Llama(job["model"], job["threads"], parallel, len(shared) + parallel * longest + 64)
    llama.run([(token, place, 0, False) for place, token in enumerate(shared)])
    llama.run([(own[0][0], len(shared), 0, True)])
    C.llama_memory_seq_rm(llama.memory, 0, len(shared), -1)
    prefill = decode = 0.0
    tokens_out = 0
    for first in range(0, len(own), parallel):
        rows = own[first : first + parallel]
        started = time.perf_counter()
        items = []
        for row, ids in enumerate(rows):
            C.llama_memory_seq_rm(llama.memory, row + 1, -1, -1)
            C.llama_memory_seq_cp(llama.memory, 0, row + 1, -1, -1)
            items += [
                (token, len(shared) + place, row + 1, place == len(ids) - 1)
                for place, token in enumerate(ids)
            ]
        newest = dict(enumerate(llama.run(items)))
        between = time.perf_counter()
        for step in range(limit):
            newest = {row: token for row, token in newest.items() if token not in stop}
            tokens_out += len(newest)
            if not newest or step == limit - 1:
                break
            places = {row: len(shared) + len(rows[row]) + step for row in newest}
            best = llama.run([(token, places[row], row + 1, True) for row, token in newest.items()])
            newest = dict(zip(newest, best, strict=True))
        prefill, decode = prefill + between - started, decode + time.perf_counter() - between
    print(
        json.dumps(
            {"seconds": prefill + decode, "prefill": prefill, "decode": decode, "tokens_out": tokens_out}
        )
    )


if __name__ == "__main__":
    main()
