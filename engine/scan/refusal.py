"""How the checks of an ONNX file say no."""

from __future__ import annotations

from engine.errors import EngineError


def refuse(message: str, code: str = "onnx") -> EngineError:
    return EngineError(message, field="file", code=code)
