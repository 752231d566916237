"""Audio encoders: one file per family, each declaring its facts. A mixture of encoders is an encoder too."""

NAMES = {
    "cnn": "cnn:CnnEncoder",
    "level": "level:LevelEncoder",
    "whisper": "whisper:WhisperEncoder",
    "ast": "ast:AstEncoder",
    "ltu_ast": "ltu_ast:LtuAstEncoder",
    "sslam": "sslam:SslamEncoder",
    "clap": "clap:ClapEncoder",
    "hubert": "hubert:HubertEncoder",
    "wav2vec2": "wav2vec2:Wav2Vec2Encoder",
    "wavlm": "wavlm:WavlmEncoder",
    "mowe": "ossicle.mixtures.mowe:Mowe",
    "pam": "ossicle.mixtures.pam:Pam",
    "concat": "ossicle.mixtures.concat:Concat",
    "average": "ossicle.mixtures.average:Average",
    "base-only": "ossicle.mixtures.base_only:BaseOnly",
}
