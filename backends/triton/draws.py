"""The device function of random words, as those of `library.py`; `codesign.ir.philox` says what it means."""

# mypy: ignore-errors
# Device code: its values are Triton tensors, which Python types do not describe.
import triton
import triton.language as tl


@triton.jit
def _philox(seed, row, column):
    """The first two of the four words of Philox 4x32-10 for the counter (column, row, 0, 0), the second in the upper half.

    Until the rounds mix rows and columns, each is worked out along its own axis alone.
    """
    first_key, second_key = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    first, second = column.to(tl.uint32), row.to(tl.uint32)
    third = tl.full([], 0, tl.uint32)
    fourth = third
    for _ in tl.static_range(10):
        a, b = first.to(tl.uint64) * 0xD2511F53, third.to(tl.uint64) * 0xCD9E8D57
        first, second, third, fourth = (
            (b >> 32).to(tl.uint32) ^ second ^ first_key,
            b.to(tl.uint32),
            (a >> 32).to(tl.uint32) ^ fourth ^ second_key,
            a.to(tl.uint32),
        )
        first_key, second_key = first_key + 0x9E3779B9, second_key + 0xBB67AE85
    return (first.to(tl.uint64) | (second.to(tl.uint64) << 32)).to(tl.int64, bitcast=True)
