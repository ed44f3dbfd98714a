"""The check of a whole model against torch: what it must see, and right models that must not alarm it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from codesign import pipeline
from codesign.command import Steps
from codesign.costmodel.machine import load_machine
from codesign.document import Compiled, ModelDocument
from codesign.ir.errors import CodesignError
from codesign.report import complaints
from tests.commands.invoke import run

PRELUDE = "import torch\nfrom torch import nn\n"


def compiled(folder: Path, text: str) -> ModelDocument:
    path = _written(folder, text)
    options, steps = pipeline.Options(kernels=False), Steps(None)
    return pipeline.compile_for(
        pipeline.capture(path, options, steps), load_machine("h100_sxm"), options, steps
    ).document


def _written(folder: Path, text: str) -> Path:
    path = folder / "model.py"
    path.write_text(PRELUDE + text)
    return path


WRONG = """
from codesign.frontend.lowering.registry import lower
from codesign.ir.scalar import apply, literal
@torch.library.custom_op("{name}::op", mutates_args=())
def op(x: torch.Tensor) -> torch.Tensor: return x * 1.0
@op.register_fake
def _(x): return torch.empty_like(x)
@lower("{name}.op.default")
def rule(b, x): return b.pointwise(lambda a: {body}, x, compute=b.dtype)
"""


def test_the_example_itself_is_run(tmp_path: Path) -> None:
    """A rule that is wrong above 20 only, where no draw in a file's own range would go."""
    text = WRONG.format(name="beyond", body='apply("min", a, literal(20.0, a.dtype))')
    text += "model = lambda x: op(x) + 1\nexample_inputs = (torch.tensor([1.0, 30.0, 2.0]),)\n"
    text += "def get_fresh_inputs(seed): return torch.rand(3)\n"
    found = compiled(tmp_path, text).verified
    assert found is not None
    assert not found.ok
    assert found.note.startswith("example inputs: output 0")


def test_other_inputs_are_run_too(tmp_path: Path) -> None:
    text = WRONG.format(name="other", body='apply("min", a, literal(20.0, a.dtype))')
    text += "model = lambda x: op(x) + 1\nexample_inputs = (torch.rand(3),)\n"
    text += "def get_fresh_inputs(seed): return torch.full((3,), 21.0)\n"
    found = compiled(tmp_path, text).verified
    assert found is not None
    assert not found.ok
    assert found.inputs == ["example", "get_fresh_inputs"]


def test_a_factor_before_a_float8_is_seen(tmp_path: Path) -> None:
    text = WRONG.format(name="eighth", body='apply("mul", a, literal(0.9, a.dtype))')
    text += "model = lambda x: op(x).to(torch.float8_e5m2).float() * 2\nexample_inputs = (torch.randn(9, 31),)\n"
    found = compiled(tmp_path, text).verified
    assert found is not None
    assert not found.ok


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("nn.GELU()", "(torch.rand(5, 99),)"),
        ("lambda x, i: x.cumsum(0)[i.long()]", "(torch.rand(6, 3), torch.tensor([0.0, 5.0, 2.0, 5.0]))"),
        ("lambda x: x.log() + x.sqrt()", "(torch.rand(4, 9) + 0.1,)"),
        ("lambda x: (x.bfloat16().round().topk(3), x.round().kthvalue(5, 0))", "(torch.randn(40, 200),)"),
        ("lambda a, b: a // b", "(torch.tensor([7, -8, 9, 4]), torch.tensor([2, -3, 5, 1]))"),
        ("lambda x: nn.functional.dropout(x.exp(), 0.3) + torch.rand(4, 9)", "(torch.randn(4, 9),)"),
        (
            "lambda q: nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.3, is_causal=True)",
            "(torch.randn(1, 2, 16, 8),)",
        ),
        ("nn.EmbeddingBag(30, 4, mode='mean')", "(torch.tensor([3, 7, 1, 29]), torch.tensor([0, 1, 3]))"),
    ],
)
def test_right_models_agree(tmp_path: Path, model: str, inputs: str) -> None:
    found = compiled(tmp_path, f"model = {model}\nexample_inputs = {inputs}\n").verified
    assert found is not None
    assert found.ok, found
    assert found.inputs == ["example", "drawn"]


OPEN_UNION = """
class Masked(nn.Module):
    def forward(self, q, k):
        i, j = torch.arange(q.shape[0])[:, None], torch.arange(k.shape[0])
        seen = ((j == i - 11) | ((j <= i + 7) & (j > i - 3))) & (j <= i)
        return (q @ k.t()).masked_fill(~seen, torch.finfo(torch.float32).min).amax(-1)
model = Masked()
example_inputs = (torch.randn(5, 16), torch.randn(16, 16))
dynamic_shapes = ({0: torch.export.Dim("r", min=2, max=4096)}, {0: torch.export.Dim("c", min=2, max=4096)})
"""


def test_what_a_union_of_masks_leaves_is_priced_at_open_sizes(tmp_path: Path) -> None:
    """At the sizes of the example alone it is two intervals, of all that are possible it is one."""
    found = compiled(tmp_path, OPEN_UNION)
    assert found.verified is not None
    assert found.verified.ok


INDEXER = """
class Indexer(nn.Module):
    def forward(self, q, k, v, scorers, keys, weights):
        scores = (torch.einsum("hqs,ks->hqk", scorers, keys).relu() * weights[..., None]).sum(0)
        future = torch.full_like(scores, float("-inf")).triu(1)
        places = (scores + future).topk(6, dim=-1).indices
        mask = torch.full_like(scores, float("-inf")).scatter(-1, places, 0.0) + future
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
model = Indexer()
torch.manual_seed(0)
q, k, v, scorers = torch.randn(2, 20, 8), torch.randn(2, 20, 8), torch.randn(2, 20, 8), torch.randn(2, 20, 4)
example_inputs = q, k, v, scorers, torch.randn(20, 4), torch.rand(2, 20)
"""


def test_keys_that_are_chosen_among_equal_scores_are_the_same_ones(tmp_path: Path) -> None:
    """Attention over the keys that a small product of heads scores best, as in DeepSeek-V3.2: ReLU makes many scores zero, so that some rows
    have equal ones where the choice ends, and another choice would be another result."""
    found = compiled(tmp_path, INDEXER).verified
    assert found is not None
    assert found.ok, found
    _, _, _, scorers, keys, weights = runpy.run_path(str(tmp_path / "model.py"))["example_inputs"]
    scores = (torch.einsum("hqs,ks->hqk", scorers, keys).relu() * weights[..., None]).sum(0)
    ends = [scores[row, : row + 1].sort(descending=True).values[5:7] for row in range(6, 20)]
    assert any(last == beyond for last, beyond in ends)


FORCES = """
class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.LayerNorm(16), nn.Linear(16, 1))
    def forward(self, places):
        places = places.detach().clone().requires_grad_()
        energy = self.layers(places).square().sum()
        (slope,) = torch.autograd.grad(energy, places, create_graph=True)
        return energy, -slope, torch.autograd.grad(slope.square().sum(), self.layers[0].weight)[0]
model = Energy()
example_inputs = (torch.randn(5, 3),)
"""


def test_gradients_that_a_model_takes_itself(tmp_path: Path) -> None:
    """Forces as the slope of an energy, and a gradient of those: captured, and compared with torch that records gradients."""
    document = compiled(tmp_path, FORCES)
    assert document.verified is not None
    assert document.verified.ok, document.verified
    assert document.verified.inputs == ["example", "drawn"]


CANCELS = """
model = lambda x: (x * 100, ({what} - x.mean(0)).sum(0))
example_inputs = (torch.rand(333, 5) + 1,)
"""


def test_what_cancels_is_rounding_and_no_disagreement(tmp_path: Path) -> None:
    """A result that is 0 but for rounding, in the order of either's sums; one that is off by a thousandth of what cancels is seen."""
    found = compiled(tmp_path, CANCELS.format(what="x")).verified
    assert found is not None
    assert found.ok, found
    wrong = WRONG.format(name="cancels", body='apply("mul", a, literal(1.001, a.dtype))')
    found = compiled(tmp_path, wrong + CANCELS.format(what="op(x)")).verified
    assert found is not None
    assert not found.ok


def test_a_bias_before_a_batch_norm_has_no_gradient(tmp_path: Path) -> None:
    text = "model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))\n"
    _written(tmp_path, text + "training = True\nexample_inputs = (torch.randn(4, 3, 8, 8),)\n")
    result = run("compile", "model.py", "--backward", "--no-kernels", "--no-reuse", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "agrees with torch" in result.stdout


def test_gradients_of_what_needs_none(tmp_path: Path) -> None:
    text = "model = lambda x: torch.autograd.grad(x.square().sum(), x)[0]\nexample_inputs = (torch.randn(3),)\n"
    with pytest.raises(CodesignError) as caught:
        compiled(tmp_path, text)
    assert "requires_grad_() on it in forward" in str(caught.value.hint)
    with pytest.raises(CodesignError) as caught:
        pipeline.capture(_written(tmp_path, FORCES), pipeline.Options(kernels=False, dynamic=True), Steps(None))
    assert "leave dynamic_shapes and --dynamic out" in str(caught.value.hint)


def test_places_names_and_memory_are_the_users(tmp_path: Path) -> None:
    """A module of torch has no line of the user's to show; an op of the user's has its own name; memory counts inputs, weights and
    results."""
    text = (
        WRONG.format(name="lab", body='apply("add", a, a)')
        + "class M(nn.Module):\n    def forward(self, x): return op(x).softmax(-1)\n"
    )
    document = compiled(tmp_path, text + "model = M()\nexample_inputs = (torch.randn(8, 16),)\n")
    assert "op" in [op for kernel in document.kernels for op in kernel.ops]
    assert document.input_bytes == document.output_bytes == 8 * 16 * 4
    assert document.peak_memory_bytes >= 2 * 8 * 16 * 4
    linear = compiled(tmp_path, "model = nn.Linear(16, 4, bias=False)\nexample_inputs = (torch.randn(8, 16),)\n")
    assert linear.constant_bytes == 4 * 16 * 4
    assert linear.peak_memory_bytes == 4 * (8 * 16 + 4 * 16 + 8 * 4)
    for model in ("nn.Softmax(-1)", "torch.tanh", "nn.Sequential(nn.Linear(16, 4), nn.SiLU())"):
        bare = compiled(tmp_path, f"model = {model}\nexample_inputs = (torch.randn(8, 16),)\n")
        assert not [place for kernel in bare.kernels for place in kernel.source if ".py:" in place]


def test_a_kernel_that_does_not_compile_is_a_failure(tmp_path: Path) -> None:
    document = compiled(tmp_path, "model = nn.ReLU()\nexample_inputs = (torch.randn(8, 16),)\n")
    assert not complaints(document)
    document.kernels[0].compiled = Compiled(arch="sm_90", error="rejected")
    (text,) = complaints(document)
    assert text == f"kernel {document.kernels[0].name} did not compile: rejected"


def test_a_model_that_disagrees_with_torch_is_one_line_on_stderr_and_fails(tmp_path: Path) -> None:
    text = WRONG.format(name="off", body='apply("min", a, literal(20.0, a.dtype))')
    text += "model = lambda x: op(x) + 1\nexample_inputs = (torch.tensor([1.0, 30.0, 2.0]),)\n"
    (tmp_path / "model.py").write_text(PRELUDE + text)
    result = run("compile", "model.py", "--no-kernels", "--no-reuse", cwd=tmp_path)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: model on h100_sxm: disagrees with torch (error ")
    assert "example inputs: output 0" in line


STATE = """
class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
    def forward(self, x):
        self.seen.add_({amount})
        x.clamp_(min=0)
        return x.t() * 2 + self.seen
model = Counter()
example_inputs = (torch.randn(3, 3).t(),)
"""


def test_written_inputs_and_buffers_are_compared(tmp_path: Path) -> None:
    found = compiled(tmp_path, STATE.format(amount="x.sum(0)")).verified
    assert found is not None
    assert found.ok, found
    wrong = WRONG.format(name="state", body='apply("mul", a, literal(1.5, a.dtype))')
    text = wrong + STATE.format(amount="op(x.sum(0))").replace("+ self.seen", "+ 1")
    found = compiled(tmp_path, text).verified
    assert found is not None
    assert not found.ok, "the buffer alone is wrong"
    assert "buffer seen" in found.note


EXCHANGED = """
class Exchange(nn.Module):
    def forward(self, x, y):
        before = x.clone()
        x.copy_(y)
        y.copy_(before)
        return before, x - y
model = Exchange()
example_inputs = (torch.randn(3, 4), torch.randn(3, 4))
"""


def test_the_old_value_of_an_input_may_be_a_result_and_the_new_one_of_another(tmp_path: Path) -> None:
    found = compiled(tmp_path, EXCHANGED).verified
    assert found is not None
    assert found.ok, found


def test_where_torch_fails_on_other_inputs_the_example_stands_alone(tmp_path: Path) -> None:
    text = "model = nn.Embedding(5, 4)\nexample_inputs = (torch.tensor([3, 1, 4]),)\n"
    text += "def get_fresh_inputs(seed): return torch.tensor([3, 9, 4])\n"
    found = compiled(tmp_path, text).verified
    assert found is not None
    assert found.ok
    assert found.inputs == ["example"]
    assert "the example stands alone" in found.note


def test_nan_is_no_agreement(tmp_path: Path) -> None:
    document = compiled(tmp_path, "model = lambda x: x.log() + 1\nexample_inputs = (torch.full((4,), -2.0),)\n")
    assert document.verified is None
    assert any("100% NaN" in warning for warning in document.warnings)


def test_what_is_too_large_is_not_run(tmp_path: Path) -> None:
    text = "model = lambda x: x.softmax(-1)\nexample_inputs = (torch.empty(1 << 20, 1 << 12, device='meta'),)\n"
    document = compiled(tmp_path, text)
    assert document.verified is None
    assert any("too many to interpret" in warning for warning in document.warnings)
