"""Connectors: audio tokens of an encoder to audio tokens at the language model's width."""

NAMES = {
    "mlp": "mlp:MlpConnector",
}
