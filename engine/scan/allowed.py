"""Which names a stored model may refer to: the allowlist behind pickle and skops scans.

Three answers: `allowed` (ordinary parts of scikit-learn, numpy, scipy, pandas, torch, the models of
XGBoost and LightGBM), `dangerous` (known ways
out: commands, files, network, code from text) and `unknown` (somebody's own class: a person decides).
"""

from __future__ import annotations

import re
from typing import Literal

Judgement = Literal["allowed", "unknown", "dangerous"]

_BUILTINS = {
    "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str", "bytes",
    "bytearray", "slice", "range", "object", "type",
}  # fmt: skip
_DANGEROUS_MODULES = {
    "os", "posix", "nt", "subprocess", "sys", "socket", "shutil", "importlib", "pkgutil", "runpy", "ctypes",
    "pty", "code", "codeop", "marshal", "pickle", "_pickle", "cloudpickle", "dill", "urllib", "http", "requests",
    "httpx", "webbrowser", "multiprocessing", "threading", "asyncio", "signal", "tempfile", "pathlib", "glob",
    "io", "_io", "ftplib", "smtplib", "telnetlib", "platform", "pdb", "bdb", "timeit", "trace", "cProfile",
    "profile", "operator", "_operator", "functools", "types", "inspect", "gc", "site", "sysconfig", "venv", "pip",
    "ensurepip", "distutils", "setuptools", "zipimport", "joblib", "mlflow", "torch", "commands", "popen2",
    "logging", "builtins", "__builtin__", "idlelib", "lib2to3", "doctest", "unittest", "_posixsubprocess",
    "getattr", "ssl", "select", "mmap", "fcntl", "resource", "zipfile", "tarfile", "sqlite3", "readline",
}  # fmt: skip
_PICKLED_CLASSES = r"_?[A-Z]\w*"
_HELPERS = r"__pyx_unpickle_\w+|newObj|__setstate_\w+"
_ALLOWED = [
    (re.compile(r"sklearn(\.\w+)*"), re.compile(rf"{_PICKLED_CLASSES}|{_HELPERS}")),
    (re.compile(r"numpy(\._?core)?(\.multiarray|\.numeric)?"), re.compile(
        r"_reconstruct|scalar|ndarray|dtype|_frombuffer|matrix|generic|"
        r"(u?int|float|complex)(8|16|32|64|128)|bool_?|str_|object_|intp|nan|inf|"
        r"log|log1p|log2|log10|exp|expm1|sqrt|cbrt|square|abs|absolute|sin|cos|tan|tanh|arcsinh|sign|reciprocal")),
    (re.compile(r"numpy\._?core\._?(internal|methods)?"), re.compile(r"_ufunc_reconstruct")),
    (re.compile(r"numpy\.dtypes"), re.compile(_PICKLED_CLASSES)),
    (re.compile(r"numpy\.ma(\.core)?"), re.compile(r"MaskedArray|_mareconstruct")),
    (re.compile(r"numpy\.random(\.\w+)?"), re.compile(
        r"__randomstate_ctor|__generator_ctor|__bit_generator_ctor|__pyx_unpickle_\w+|_?[A-Z]\w*")),
    (re.compile(r"scipy\.(sparse|interpolate|stats|spatial|special)(\.\w+)*"), re.compile(
        rf"{_PICKLED_CLASSES}|{_HELPERS}|[cb]s[rc]_(matrix|array)|(coo|dia|dok|lil)_(matrix|array)|expit|logit")),
    (re.compile(r"pandas(\.\w+)*"), re.compile(
        r"DataFrame|Series|Index|RangeIndex|MultiIndex|CategoricalDtype|BlockManager|SingleBlockManager|Block|"
        r"StringDtype|_unpickle_block|__pyx_unpickle_\w+|new_block|_new_Index|Categorical|Timestamp")),
    (re.compile(r"lightgbm\.(sklearn|basic)"), re.compile(r"LGBM(Model|Classifier|Regressor|Ranker)|Booster")),
    (re.compile(r"xgboost\.(sklearn|core)"), re.compile(r"XGB(RF)?(Model|Classifier|Regressor|Ranker)|Booster")),
    (re.compile(r"collections"), re.compile(r"OrderedDict|defaultdict|Counter|deque")),
    (re.compile(r"copyreg|copy_reg"), re.compile(r"_reconstructor|__newobj__")),
    (re.compile(r"_codecs"), re.compile(r"encode")),
    (re.compile(r"datetime"), re.compile(r"datetime|date|timedelta|timezone")),
    (re.compile(r"decimal"), re.compile(r"Decimal")),
    (re.compile(r"builtins|__builtin__"), re.compile("|".join(sorted(_BUILTINS)))),
    # joblib stores arrays beside the pickle; the wrapper only reads the same stream
    (re.compile(r"joblib\.numpy_pickle"), re.compile(r"NumpyArrayWrapper|NDArrayWrapper")),
    # What torch.save writes for tensors and torch's own layers; torch as a whole stays dangerous (load, hub, jit, …)
    (re.compile(r"torch"), re.compile(
        r"(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|ComplexFloat|ComplexDouble|QInt8|QInt32|QUInt8|"
        r"QUInt4x2|QUInt2x4|Untyped)Storage|Size|Tensor|device|(b?float|u?int|complex|q?u?int)\d+(x\d)?|"
        r"float8_e\dm\d\w*|bool|strided|sparse_(coo|csr|csc|bsr|bsc)|per_(tensor|channel)_\w+|relu|tanh|sigmoid")),
    (re.compile(r"torch\._utils"), re.compile(
        r"_rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|sparse_tensor|"
        r"sparse_csr_tensor|nested_tensor|meta_tensor_no_storage)")),
    (re.compile(r"torch\._tensor"), re.compile(r"_rebuild_from_type_v2")),
    (re.compile(r"torch\.serialization"), re.compile(r"_get_layout")),
    (re.compile(r"torch\.nn\.parameter"), re.compile(r"(Uninitialized)?(Parameter|Buffer)")),
    (re.compile(r"torch\.nn\.modules(\.\w+)*"), re.compile(_PICKLED_CLASSES)),
    (re.compile(r"torch\.nn\.functional|torch\._C\._nn"), re.compile(
        r"relu6?|gelu|elu|selu|celu|silu|mish|leaky_relu|tanh|sigmoid|softmax|log_softmax|softplus|hard(tanh|swish)")),
    # Classes and lists inside a TorchScript program: its own reader knows them, Python has no such module
    (re.compile(r"__torch__(\.\w+)*"), re.compile(r"\w+")),
    (re.compile(r"torch\.jit\._pickle"), re.compile(
        r"build_(int|tensor|double|bool)list|build_tensor_from_id|restore_type_tag")),
]  # fmt: skip
_NUMPY_FILES = re.compile(
    r"(fromfile|fromregex|load\w*|save\w*|memmap|genfromtxt|open_memmap|DataSource|runstring|exec_\w+|f2py)"
)


def judge(module: str, name: str) -> Judgement:
    """What a reference to `module.name` in a stored model means."""
    for modules, names in _ALLOWED:
        if modules.fullmatch(module) and names.fullmatch(name):
            return "allowed"
    if module.split(".")[0] in _DANGEROUS_MODULES:
        return "dangerous"
    # `random` holds `_os`: a name with dots walks through whatever a module has imported.
    if any(part.strip("_") in _DANGEROUS_MODULES for part in name.split(".")[:-1]):
        return "dangerous"
    if module.startswith(("numpy", "pandas", "scipy", "sklearn")) and (
        _NUMPY_FILES.fullmatch(name) or name.startswith(("read_", "fetch_", "to_"))
    ):
        return "dangerous"
    return "unknown"
