"""A checkpoint as an endpoint that OpenAI clients use unchanged, and a page anyone can use.

    client ──► gate (keys, limits, ids, logs) ──► api ──► media (audio in) ──► job ──► worker ──► Listener, decoder
    browser ─► page (Gradio, same process) ──────────────────────────────────┘

Nothing here imports torch before a model is loaded, so that `/health` answers at once.
"""
