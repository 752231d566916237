"""Audio encoders: one file per family, each declaring its facts. A mixture of encoders is an encoder too."""

NAMES = {
    "cnn": "cnn:CnnEncoder",
    "whisper": "whisper:WhisperEncoder",
    "ast": "ast:AstEncoder",
}
