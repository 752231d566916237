"""A dataset's official layout to clips: one YAML file per dataset, code only where a table cannot say it.

    NAME.yaml ─► tables, joins, columns, file pattern ─► clips          read by `table.py`
    generic:     folders · csv · jsonl · manifest · hf · lhotse · webdataset     read by `generic.py`

`layout: verified` means that files and columns were read on the owner's page; `unverified`, that they were not.
"""

NAMES = {
    "audioset_strong": "special:audioset_strong",
    "emodb": "special:emodb",
    "fma": "special:fma",
    "iemocap": "special:iemocap",
    "librispeech": "special:librispeech",
    "libritts": "special:libritts",
    "voxceleb2": "special:voxceleb2",
    "folders": "generic:folders",
    "csv": "generic:table_file",
    "jsonl": "generic:table_file",
    "manifest": "generic:manifest",
    "hf": "exchange:hugging_face",
    "lhotse": "exchange:lhotse",
    "webdataset": "exchange:webdataset",
}
"""Layouts that need code: name → `module:function(root, layout, tally)`."""
