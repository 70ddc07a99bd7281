"""Networks from Python files, and one sentence for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_files import (
    write_python,
)
from own_networks import CONV, HEAD, load, module_text

from tvmmobile.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("def small(:\n", r"net\.py cannot be imported: SyntaxError: .*\(line 1\)", id="syntax"),
        pytest.param("import nowhere_to_be_found\n", r"cannot be imported: ModuleNotFoundError: .*\(line 1\)", id="import"),
        pytest.param("\nexit(3)\n", r"cannot be imported: SystemExit: 3 \(line 2\)", id="exit"),
        pytest.param("def large(): pass\n", r"net\.py has no function small", id="no factory"),
        pytest.param("small = 3\n", r"net\.py has no function small", id="no function"),
        pytest.param("def small():\n    return 1 / 0\n", r"net\.py:small fails: ZeroDivisionError: .*\(line 2\)", id="raising"),
        pytest.param("def small(width):\n    pass\n", r"net\.py:small fails: TypeError: .*width", id="an argument"),
        pytest.param("def small():\n    return 'net'\n", r"returns str, not a torch\.nn\.Module", id="text"),
        pytest.param(f"{HEAD}def small():\n    return {CONV}.state_dict()\n", "returns OrderedDict, not", id="a state dict"),
        pytest.param(f"{HEAD}def small():\n    return {CONV}, (1, 3, 8, 8)\n", "returns Conv2d, tuple, not", id="a shape"),
        pytest.param(f"{HEAD}def small():\n    return {CONV}.half()\n", "weight is float16, not float32", id="half"),
        pytest.param(
            f"{HEAD}def small():\n    return {CONV}, torch.zeros(1, 5, 8, 8)\n",
            r"the module fails for an input of \[1, 5, 8, 8\]: RuntimeError",
            id="channels",
        ),
        pytest.param(
            module_text("return self.conv(x.float())").replace("Net()", "Net(), torch.zeros(1, 3, 8, 8).to(torch.int16)"),
            "the input 'x' is int16, not one of float32",
            id="short integers",
        ),
        pytest.param(
            module_text("return self.conv(x) if x.sum() > 1 else self.conv(-x)"), r"cannot be exported: .*[Dd]ata-dependent", id="a branch"
        ),
        pytest.param(
            module_text("return torch.special.i1(torch.fft.fft2(self.conv(x)).real)"),
            r"has operators that cannot be imported: aten\._fft_c2c\.default \(net\.py, line 9\), .*aten\.special_i1\.default",
            id="operators",
        ),
        pytest.param(module_text("self.count.add_(1); return self.conv(x)"), "changes count when it runs", id="a state"),
        pytest.param(module_text("return torch.relu(x)"), "has no convolution or matrix product with weights", id="no layer"),
    ],
)
def test_a_python_file_that_will_not_do(tmp_path: Path, text: str, complaint: str) -> None:
    path = write_python(tmp_path, text)
    with pytest.raises(UserError, match=complaint) as caught:
        load(f"{path}:small", 8 if "zeros(1, 3, 8" not in text and "zeros(3" not in text else None)
    assert "\n" not in caught.value.message and caught.value.remedy
    assert [each.name for each in tmp_path.iterdir()] == ["net.py"]


@pytest.mark.parametrize("model", ["gone.py:small", "gone.pt2", "gone.onnx", "."])
def test_a_file_that_is_not_there(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match=r"gone\.\w+ cannot be read: No such file|is not a network file"):
        load(tmp_path / model)
