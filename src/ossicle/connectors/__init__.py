"""Connectors: audio tokens of an encoder to audio tokens at the language model's width."""

NAMES = {
    "mlp": "mlp:MlpConnector",
    "linear": "linear:LinearConnector",
    "stack": "stack:StackConnector",
    "pool": "pool:PoolConnector",
    "conv": "conv:ConvConnector",
    "qformer": "qformer:QformerConnector",
    "tags": "tags:TagsConnector",
    "tltr": "tltr:TltrConnector",
}
