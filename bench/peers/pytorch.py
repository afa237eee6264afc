"""Times PyTorch on the cases that bench/pytorch.ts gives on standard input, as JSON on standard output.

A case: {"op": "matmul" | "grouped" | "attention" | "attentionBackward", sizes}. Answers {"torch", "device", "results"}, with
the median seconds of each case, or null and why it cannot run here.
"""

import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

REPEATS = 7
ENQUEUED_SECONDS = 0.05
MOST_ENQUEUED = 100


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run, count, device):
    wait(device)
    start = time.perf_counter()
    for _ in range(count):
        run()
    wait(device)
    return (time.perf_counter() - start) / count


def median_seconds(run, device):
    """As timeAgainstPeak of bench/support/measure.ts."""
    seconds_of(run, 1, device)
    count = 1
    if device == "cuda":
        count = min(MOST_ENQUEUED, max(1, round(ENQUEUED_SECONDS / seconds_of(run, 1, device))))
    return statistics.median(seconds_of(run, count, device) for _ in range(REPEATS))


def matmul(case, device):
    """[rows, in] times [in, out]."""
    a = torch.randn(case["rows"], case["in"], device=device, dtype=torch.bfloat16)
    b = torch.randn(case["in"], case["out"], device=device, dtype=torch.bfloat16)
    return lambda: torch.matmul(a, b)


def grouped(case, device):
    """Rows sorted by expert [rows, in] times [E, in, out]; offsets are the ends of the experts' rows."""
    x = torch.randn(case["rows"], case["in"], device=device, dtype=torch.bfloat16)
    w = torch.randn(len(case["offsets"]), case["in"], case["out"], device=device, dtype=torch.bfloat16)
    offsets = torch.tensor(case["offsets"], device=device, dtype=torch.int32)
    return lambda: torch._grouped_mm(x, w, offs=offsets)


def vectors(case, heads, device):
    shape = (case["B"], heads, case["T"], case["C"])
    return torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_()


def attention_call(case, device):
    q = vectors(case, case["K"] * case["H"], device)
    k, v = vectors(case, case["H"], device), vectors(case, case["H"], device)
    gqa = case["K"] > 1
    # On the CPU there is no choice to make.
    backends = [SDPBackend.FLASH_ATTENTION] if device == "cuda" else list(SDPBackend.__members__.values())
    return (q, k, v), lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa), backends


def attention(case, device):
    _, call, backends = attention_call(case, device)

    def run():
        with torch.no_grad(), sdpa_kernel(backends):
            call()

    return run


def attention_backward(case, device):
    inputs, call, backends = attention_call(case, device)
    with sdpa_kernel(backends):
        out = call()
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)


OPS = {
    "matmul": matmul,
    "grouped": grouped,
    "attention": attention,
    "attentionBackward": attention_backward,
}


def measure(case, device):
    try:
        return {"seconds": median_seconds(OPS[case["op"]](case, device), device)}
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        return {"seconds": None, "reason": str(error).splitlines()[0]}


def main():
    request = json.load(sys.stdin)
    device = request["device"]
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    results = [measure(case, device) for case in request["cases"]]
    json.dump({"torch": torch.__version__, "device": name, "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
