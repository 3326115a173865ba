"""Networks in 8 bits (and 16): as ONNX by ONNX Runtime's tools, as C by the engine's own."""

__all__: list[str] = []
